"""Install the distributions as users do, in clean environments, and run them outside the source tree.

    python tests/installs.py [--only WORD] [--skip EXTRA,…] [--folder DIR] [PYTHON[:TORCH] …]

    python tests/installs.py python3.11 python3.12:2.14.1 python3.13:2.11.0

It builds the sdist and the wheel, checks their metadata, and installs: the wheel alone, with torch, and for exported
files without torch, for every Python; each extra alone, the sdist, and by `uv tool` and `pipx`, for the first. Versions
are the newest that pip finds, without constraints. An environment is deleted after its checks. Exit code 1, and the
names of what failed, if anything did. Nothing but Python and pip is needed; a run downloads several GB where torch is a
CUDA build.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("build==1.6.1", "twine==7.0.0", "uv==0.13.9", "pipx==1.18.4")
SUPPORTED = ("python3.11", "python3.12", "python3.13")
NOT_TRIED = ("test", "docs", "tensorrt")
"""Extras of development, and one of several GB for a GPU."""
DEADLINE_S = 1800
NETWORK = "name='inception_resnet_v1', num_classes=3, width=0.125, input_size=75"

MAKE = f"""
import torch
from inceptionnet import create_model, load_model, save_weights
model = create_model({NETWORK}).eval()
x = torch.rand(2, 3, 75, 75) * 2 - 1
logits = model(x)
assert logits.shape == (2, 3) and torch.isfinite(logits).all(), logits
save_weights(model, 'small.safetensors', classes=('red', 'green', 'blue'))
assert torch.equal(load_model('small.safetensors').eval()(x), logits)
"""
IMAGES = """
from pathlib import Path
from PIL import Image
for name, colour in {'red': (210, 40, 50), 'green': (40, 180, 60), 'blue': (40, 60, 200)}.items():
    Path('images', name).mkdir(parents=True, exist_ok=True)
    for i in range(8):
        Image.new('RGB', (80, 80), tuple(c + i for c in colour)).save(f'images/{name}/{i}.png')
"""
TRAIN = [
    "train", "images", "--out", "run", "--model", "inception_resnet_v1", "--width", "0.125", "--size", "75",
    "--epochs", "1", "--workers", "0",
]  # fmt: skip
PREDICT = ["predict", "--json", "--top", "2"]


class Failed(Exception):
    """What was tried and what came instead, in one line."""


@dataclass
class Environment:
    """A virtual environment, and the folder outside the source tree where its commands run."""

    folder: Path
    work: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def run(self, *command: str, code: int = 0) -> str:
        """Standard output of a program of the environment. Raises: Failed: another exit code."""
        return ran(self.folder / "bin" / command[0], *command[1:], work=self.work, code=code, more=self.variables)

    def python(self, program: str) -> str:
        """What a program prints."""
        return self.run("python", "-W", "error::DeprecationWarning:inceptionnet", "-c", program)

    def inceptionnet(self, *arguments: str, code: int = 0) -> str:
        """What the command prints."""
        return self.run("inceptionnet", *arguments, code=code)


def ran(program: Path | str, *arguments: str, work: Path, code: int = 0, more: Mapping[str, str] | None = None) -> str:
    """Standard output of a program that must end with `code`. Raises: Failed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    environment = {**kept, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(work / "cache"), **(more or {})}
    done = subprocess.run(
        [str(program), *arguments], cwd=work, env=environment, capture_output=True, text=True, check=False,
        timeout=DEADLINE_S,
    )  # fmt: skip
    if done.returncode != code:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").split("\n")
        shown = " ".join([Path(program).name, *(one if len(one) < 60 else "…" for one in arguments)])
        raise Failed(f"`{shown}` ended with {done.returncode}, not {code}: {said[-1][:300]}")
    return done.stdout


def bare(env: Environment) -> None:
    """What needs no extra, and that the rest says in one line which one it needs."""
    assert "train" in env.inceptionnet("--help")
    version = env.inceptionnet("--version").split()[-1]
    assert version == env.python("import inceptionnet; print(inceptionnet.__version__)").strip()
    where = Path(env.python("import inceptionnet; print(inceptionnet.__file__)").strip())
    assert where.is_relative_to(env.folder), f"imported from {where}"
    assert len(json.loads(env.inceptionnet("models", "--json"))["models"]) > 10
    env.inceptionnet("show", "inception_v3", "--svg", "v3.svg")
    doctor(env)
    env.python(IMAGES)
    done = subprocess.run(
        [env.folder / "bin" / "inceptionnet", "train", "images", "--out", "run"], cwd=env.work, capture_output=True,
        text=True, check=False, timeout=DEADLINE_S,
    )  # fmt: skip
    if "torch" not in installed(env):
        assert done.returncode == 2 and done.stderr.count("\n") <= 2 and "inceptionnet[" in done.stderr, done.stderr


def doctor(env: Environment, extra: str = "core") -> None:
    """Whether `inceptionnet doctor` finds an extra whole. Raises: Failed."""
    told = json.loads(env.inceptionnet("doctor", "--json"))
    if told["problems"] or not told["packages"][extra]["installed"]:
        raise Failed(f"`inceptionnet doctor`: {told['problems'] or told['packages'][extra]}")


def with_torch(env: Environment) -> None:
    """Build a network, save it, and predict with the file."""
    bare(env)
    env.python(MAKE)
    predict(env, "small.safetensors")


def predict(env: Environment, weights: str) -> None:
    """Predict with a file, and look at the rows."""
    env.python(IMAGES)
    rows = json.loads(env.inceptionnet(*PREDICT, weights, "images/red"))["predictions"]
    assert len(rows) == 8, rows
    assert all({top["class"] for top in row["top"]} < {"red", "green", "blue"} for row in rows), rows[0]


def exported(ending: str) -> Callable[[Environment], None]:
    """With torch: export a network, and keep the file for environments without torch."""

    def check(env: Environment) -> None:
        env.python(MAKE)
        env.inceptionnet("export", "small.safetensors", f"small{ending}", "--dynamic-batch")
        predict(env, f"small{ending}")
        for file in env.work.glob("small.*"):
            shutil.copy(file, env.work.parent)

    return check


def runs(ending: str) -> Callable[[Environment], None]:
    """Without torch: predict with the file that another environment has exported."""

    def check(env: Environment) -> None:
        files = [file for file in env.work.parent.glob("small.*") if file.suffix in (ending, ".bin")]
        assert files, f"no exported {ending} file: the environment that makes it failed or was left out"
        for file in files:
            shutil.copy(file, env.work)
        predict(env, f"small{ending}")
        assert "torch" not in installed(env)

    return check


def imports(program: str) -> Callable[[Environment], None]:
    """Whether a program ends well."""

    def check(env: Environment) -> None:
        env.python(program)

    return check


def trains(*settings: str, then: str = "run/report.html") -> Callable[[Environment], None]:
    """Train for an epoch with settings, and look for a file."""

    def check(env: Environment) -> None:
        env.python(IMAGES)
        env.inceptionnet(*TRAIN, *(word for one in settings for word in ("--set", one)))
        assert list(env.work.glob(then)), f"no {then}; there are {sorted(p.name for p in (env.work / 'run').iterdir())}"

    return check


def explains(env: Environment) -> None:
    """A heat map."""
    env.python(MAKE + IMAGES)
    env.inceptionnet("explain", "small.safetensors", "images/red/0.png", "--out", "maps")
    assert list((env.work / "maps").iterdir())


EXTRAS: Mapping[str, Callable[[Environment], None]] = {
    "onnx": exported(".onnx"),  # first: the next ones use its file
    "onnxruntime": runs(".onnx"),
    "openvino": exported(".xml"),
    "openvino-runtime": runs(".xml"),
    "torch": with_torch,
    "digits": imports("from inceptionnet.data import open_source; print(open_source('digits').splits)"),
    "explain": explains,
    "heic": imports("import pi_heif, inceptionnet.data.decode"),
    "hub": imports(
        "from inceptionnet import create_model\n"
        "from inceptionnet.registry.hub import HubInceptionNet\n"
        f"HubInceptionNet.of(create_model({NETWORK})).save_pretrained('saved')\n"
        "HubInceptionNet.from_pretrained('saved')"
    ),
    "mlflow": trains("log.trackers=mlflow", "log.report=false", then="run/mlflow/*"),
    "parquet": imports("import pyarrow, inceptionnet.data.parquet"),
    "reports": trains(),
    "serve": imports("import inceptionnet.serve.app, inceptionnet.serve.running"),
    "stream": imports("import datasets, inceptionnet.data.streams"),
    "track": trains("log.trackers=tensorboard", "log.report=false", then="run/**/events.*"),
    "video": imports("import av, inceptionnet.data.video"),
    "wandb": trains("log.trackers=wandb", "log.report=false", then="run/wandb/*"),
    "weights": imports("import h5py, google_crc32c, inceptionnet.weights.formats.hdf5"),
}
"""What is tried of each extra, beyond what `inceptionnet doctor` says of it."""


def installed(env: Environment) -> dict[str, str]:
    """Versions by name."""
    rows = json.loads(env.run("python", "-m", "pip", "list", "--format", "json"))
    return {row["name"].lower().replace("_", "-"): row["version"] for row in rows}


def size_mib(folder: Path) -> int:
    """What a folder takes."""
    return sum(path.lstat().st_size for path in folder.rglob("*")) // 2**20


class Matrix:
    """The rows of the table, as they come."""

    def __init__(self, folder: Path, only: str) -> None:
        self.folder, self.only = folder, only
        self.failed: list[str] = []
        print(f"{'what':44} {'Python':7} {'torch':12} {'packages':>8} {'MiB':>6} {'s':>5}  result", flush=True)

    def row(self, what: str, python: str, action: Callable[[], tuple[str, int, int]]) -> None:
        """Do it, and print what came."""
        if self.only not in what:
            return
        began, (torch, packages, mib), result = time.monotonic(), ("", 0, 0), "ok"
        try:
            torch, packages, mib = action()
        except (Failed, AssertionError, OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired) as error:
            line = traceback.extract_tb(error.__traceback__)[-1].line
            result = f"FAILED: {' '.join((str(error) or repr(error)).split())[:300]}"
            result += f" at `{line}`" if not isinstance(error, Failed) else ""
            self.failed.append(f"{what} ({python})")
        took = time.monotonic() - began
        print(f"{what:44} {python:7} {torch:12} {packages or '':>8} {mib or '':>6} {took:5.0f}  {result}", flush=True)

    def install(
        self, python: str, version: str, what: str, *packages: str, check: Callable[[Environment], None]
    ) -> None:
        """Install into a clean environment and check it."""

        def action() -> tuple[str, int, int]:
            name = re.sub(r"\W+", "-", f"{version}-{what}")
            env = Environment(self.folder / name / "env", self.folder / name, {"WANDB_MODE": "offline"})
            env.work.mkdir()
            try:
                ran(python, "-m", "venv", str(env.folder), work=env.work)
                # Of the thousands of modules only those that are imported are compiled.
                pip = ("python", "-m", "pip", "--quiet", "--disable-pip-version-check")
                env.run(*pip, "install", "--no-compile", *packages)
                env.run(*pip, "check")
                check(env)
                found = installed(env)
                return found.get("torch", "none"), len(found), size_mib(env.folder)
            finally:
                shutil.rmtree(env.work)

        self.row(what, version, action)


def interpreters(stated: Sequence[str]) -> list[tuple[str, str, str]]:
    """Path, version and wanted torch of each interpreter; those of `SUPPORTED` that there are, if none is stated."""
    found = []
    for one in stated or SUPPORTED:
        name, _, torch = one.partition(":")
        path = shutil.which(name)
        try:
            version = ran(path or name, "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])", work=Path.cwd())
        except (Failed, OSError):
            if stated:
                sys.exit(f"error: expected a Python interpreter, got {name!r}, which cannot be run; give its path")
            print(f"{name} is not here; it is left out")
        else:
            found.append((path or name, version.strip(), torch))
    return found or sys.exit("error: no interpreter of " + ", ".join(SUPPORTED) + " can be run; give the path of one")


def distributions(folder: Path, python: str) -> tuple[Path, Path]:
    """Build and check the wheel and the sdist. Raises: Failed."""
    ran(python, "-m", "venv", str(folder / "tools"), work=folder)
    tools = folder / "tools" / "bin" / "python"
    ran(tools, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *TOOLS, work=folder)
    ran(tools, "-m", "build", "--outdir", str(folder / "dist"), str(ROOT), work=folder)
    files = sorted(map(str, (folder / "dist").iterdir()))
    ran(tools, "-m", "twine", "check", "--strict", *files, work=folder)
    (wheel,), (sdist,) = (folder / "dist").glob("*.whl"), (folder / "dist").glob("*.tar.gz")
    return wheel, sdist


def extras_of(wheel: Path, env_python: Path) -> list[str]:
    """The names of the wheel's extras."""
    program = (
        "import sys, zipfile, email.parser as p; z = zipfile.ZipFile(sys.argv[1]);"
        "n = [n for n in z.namelist() if n.endswith('.dist-info/METADATA')][0];"
        "print(*p.Parser().parsestr(z.read(n).decode()).get_all('Provides-Extra'))"
    )
    return ran(env_python, "-c", program, str(wheel), work=wheel.parent).split()


def as_tool(folder: Path, wheel: Path, python: str, tool: str) -> tuple[str, int, int]:
    """Install the command by itself, and predict with an exported file. Raises: Failed."""
    work, bins = folder / tool, folder / tool / "bin"
    work.mkdir()
    places = {"UV_TOOL_DIR": work / "env", "UV_TOOL_BIN_DIR": bins, "UV_CACHE_DIR": work / "cache"}
    places |= {"PIPX_HOME": work / "env", "PIPX_BIN_DIR": bins, "PIPX_MAN_DIR": work / "man"}
    how = ["tool", "install"] if tool == "uv" else ["install"]
    ran(
        folder / "tools" / "bin" / tool, *how, "--python", python, f"{wheel}[onnxruntime]", work=work,
        more={name: str(place) for name, place in places.items()},
    )  # fmt: skip
    command = bins / "inceptionnet"
    ran(command, "--help", work=work)
    told = json.loads(ran(command, "doctor", "--json", work=work))
    assert not told["problems"] and told["packages"]["onnxruntime"]["installed"], told["problems"]
    if (folder / "small.onnx").exists():
        shutil.copy(folder / "small.onnx", work)
        ran(sys.executable, "-c", "open('image.ppm', 'wb').write(b'P6 80 80 255 ' + bytes(80 * 80 * 3))", work=work)
        assert json.loads(ran(command, *PREDICT, "small.onnx", "image.ppm", work=work))
    mib = size_mib(work)
    shutil.rmtree(work)
    return "none", 0, mib


def main() -> None:
    """Build, install, try, and say what failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", nargs="*", metavar="PYTHON[:TORCH]", help="interpreters, with the version of torch")
    parser.add_argument("--only", default="", metavar="WORD", help="only rows whose first column contains this")
    parser.add_argument("--skip", default="", metavar="EXTRA,…", help="extras that are not tried alone")
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    options = parser.parse_args()
    pythons = interpreters(options.python)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="installs-") as name:
        folder = Path(name)
        first, version, _ = pythons[0]
        built: list[Path] = []
        began = time.monotonic()
        try:
            built += distributions(folder, first)
        except Failed as error:
            sys.exit(f"error: the distributions: {error}")
        wheel, sdist = built
        print(f"{wheel.name} and {sdist.name}: built and checked in {time.monotonic() - began:.0f} s")
        matrix = Matrix(folder, options.only)
        extras = [one for one in extras_of(wheel, folder / "tools" / "bin" / "python") if one not in NOT_TRIED]
        unknown = sorted({*extras} ^ {*EXTRAS})
        if unknown:
            sys.exit(f"error: expected a check for each extra in EXTRAS, got differences: {', '.join(unknown)}")
        for path, of, torch in pythons:
            pinned = [f"torch=={torch}"] if torch else []
            matrix.install(path, of, "wheel", str(wheel), check=bare)
            matrix.install(path, of, "wheel[torch]", f"{wheel}[torch]", *pinned, check=with_torch)
        skipped = {*options.skip.split(",")}
        for extra in sorted({*extras} - skipped, key=[*EXTRAS].index):
            if extra == "torch":
                continue

            def check(env: Environment, extra: str = extra) -> None:
                doctor(env, extra)
                EXTRAS[extra](env)

            matrix.install(first, version, f"wheel[{extra}]", f"{wheel}[{extra}]", check=check)
        for path, of, _ in pythons[1:]:
            matrix.install(path, of, "wheel[onnxruntime]", f"{wheel}[onnxruntime]", check=runs(".onnx"))
        matrix.install(first, version, "sdist", str(sdist), check=bare)
        for tool in ("uv", "pipx"):
            matrix.row(f"{tool}: wheel[onnxruntime]", version, partial(as_tool, folder, wheel, first, tool))
    if matrix.failed:
        sys.exit("failed: " + "; ".join(matrix.failed))


if __name__ == "__main__":
    main()
