#!/bin/sh
# All GPU benchmarks and tests in one command, without internet access: benchmarks/gpu.sh [OPTIONS OF gpu.py]
# Packages that are missing are installed for this run alone, from the wheels in wheels/ or $WHEELS; gpu.py says how to
# download them. Results go to $OUT, or gpu-results/. The interpreter is $PYTHON, or python3.
set -eu
wheels=$(realpath -m "${WHEELS:-wheels}") out=$(realpath -m "${OUT:-gpu-results}") python=${PYTHON:-python3}
cd "$(dirname "$0")/.."
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
if [ -d "$wheels" ]; then
    "$python" -m pip install --quiet --no-index --no-deps --target "$site" "$wheels"/*.whl
fi
PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}" "$python" benchmarks/gpu.py --limit 9m --out "$out" "$@"
