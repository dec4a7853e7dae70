"""Optional packages that are missing or broken matter only where they are asked for, and are then one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from inceptionnet import create_model, save_weights
from inceptionnet.data import Preprocessing
from inceptionnet.errors import MissingExtraError
from inceptionnet.system.extras import import_extra

from .forked import Forked

OTHER_TORCH = 'raise RuntimeError("operator torchvision::nms does not exist")'
BROKEN = {
    "another torch": (OTHER_TORCH, "RuntimeError: operator torchvision::nms does not exist"),
    "a shared library": (
        'raise ImportError("libcudart.so.11: cannot open shared object file")',
        "ImportError: libcudart.so.11: cannot open shared object file",
    ),
    "another version of a dependency": (
        "import numpy\nnumpy.does_not_exist",
        "AttributeError: module 'numpy' has no attribute 'does_not_exist'",
    ),
    "a missing dependency": ("import absent_module", "ModuleNotFoundError: No module named 'absent_module'"),
    "several lines": ('raise OSError("one\\ntwo")', "OSError: one two"),
}
# Runs every command line of a JSON list, in one process.
COMMANDS = """
import json, sys
from inceptionnet.cli import main
for line in json.loads(sys.argv[1]):
    sys.argv = ["inceptionnet", *line]
    try:
        main()
    except SystemExit as end:
        if end.code:
            sys.exit(f"{line[0]} ended with {end.code}")
"""


def broken(folder: Path, package: str, code: str, *, version: str = "0.20.0") -> Path:
    """A folder with a package that cannot be imported, as pip would have installed it."""
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").write_text(code)
    about = folder / f"{package}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    return folder


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_package_is_one_line(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, reason = BROKEN[how]
    name = f"broken_{how.replace(' ', '_')}"
    monkeypatch.syspath_prepend(broken(tmp_path, name, code))
    with pytest.raises(MissingExtraError) as caught:
        import_extra(name, "reports", "the report")
    assert str(caught.value) == (
        f"the report needs {name}, which is installed but cannot be imported ({reason}); repair it with: "
        "pip install --force-reinstall 'inceptionnet[reports]'"
    )


def test_a_missing_package_is_one_line() -> None:
    with pytest.raises(MissingExtraError) as caught:
        import_extra("absent_module.part", "weights", "reading", package="absent-module")
    assert str(caught.value) == "reading needs absent-module; install it with: pip install 'inceptionnet[weights]'"


@pytest.mark.slow  # the tests above show what import_extra and the commands do
@pytest.mark.parametrize("known_to_pip", [True, False])
def test_no_command_minds_a_torchvision_of_another_torch(
    known_to_pip: bool, run: Path, colours: Path, tmp_path: Path
) -> None:
    """Training with its report and all that follows; torchmetrics would import torchvision by itself."""
    folder = broken(tmp_path / "packages", "torchvision", OTHER_TORCH)
    if not known_to_pip:
        (folder / "torchvision-0.20.0.dist-info" / "METADATA").unlink()
        (folder / "torchvision-0.20.0.dist-info").rmdir()
    torch.manual_seed(0)
    fid = tmp_path / "fid.safetensors"
    save_weights(create_model("inception_v3.fid", width=0.125, input_size=75), fid, preprocessing=Preprocessing(75))
    image = next(colours.rglob("*.png"))
    small = ["--model", "inception_v1.slim", "--width", 0.125, "--size", 32, "--batch-size", 8, "--workers", 0]
    commands: list[list[object]] = [
        ["train", colours, "--out", tmp_path / "run", "--epochs", 1, *small],
        ["evaluate", tmp_path / "run", colours, "--workers", 0, "--json"],
        ["predict", tmp_path / "run", image],
        ["explain", tmp_path / "run", image, "--out", tmp_path / "explained.png"],
        ["report", tmp_path / "run", "--workers", 0],
        ["fid", colours, colours, "--weights", fid, "--workers", 0],
        ["export", tmp_path / "run", tmp_path / "run.onnx"],
    ]
    if not known_to_pip:  # the training tries torchmetrics and the overlays of its report, and `fid` more of the former
        commands = [line for line in commands if line[0] in ("train", "fid")]
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands, default=str)],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "torchvision" not in done.stdout + done.stderr
    page = (tmp_path / "run" / "report.html").read_text()
    assert "No overlays" not in page and "evidence for the predicted class" in page


LABELS = """
import numpy as np
from inceptionnet.evaluate.multi_label import MultiLabelEvaluation
from inceptionnet.evaluate.multi_label_metrics import measure_labels
truth, losses = np.eye(2, dtype=bool), np.float32([0.5, 1])
metrics = measure_labels(MultiLabelEvaluation(("a", "b"), np.arange(2), truth, truth, np.eye(2), losses, 0.5, ()))
print(metrics.subset_accuracy)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "packages",
    [["torchvision"], ["matplotlib"], ["scienceplots", "matplotlib", "torchvision", "torch_fidelity", "transformers"]],
    ids=" and ".join,
)
@pytest.mark.parametrize("code", [OTHER_TORCH, "raise OSError('x.so: undefined symbol')", "import absent_module"])
def test_metrics_do_not_mind_broken_packages_that_torchmetrics_imports(
    packages: list[str], code: str, tmp_path: Path, with_torch: Forked
) -> None:
    for package in packages:
        folder = broken(tmp_path, package, code)
    done = with_torch(LABELS, env=os.environ | {"PYTHONPATH": str(folder)}, absent=packages)
    assert (done.returncode, done.stdout) == (0, "1.0\n"), done.stderr


QUICK = [
    ("pyarrow", ["evaluate", "RUN", "DATA", "--predictions", "p.parquet"]),
]
SLOW = [
    ("captum", ["explain", "RUN", "IMAGE", "--out", "e.png"]),
    ("sklearn", ["train", "digits", "--out", "new", "--model", "inception_v1.slim"]),
    ("matplotlib", ["report", "RUN", "--out", "r.html"]),
    ("jinja2", ["report", "RUN", "--out", "r.html"]),
    ("jinja2", ["check", "DATA", "--weights", "RUN", "--html", "l.html"]),
    ("pyarrow", ["check", "DATA", "--weights", "RUN", "--table", "l.parquet"]),
    ("openvino", ["export", "RUN", "a.xml"]),
    ("onnxscript", ["export", "RUN", "a.onnx"]),
    ("onnxruntime", ["export", "RUN", "a.onnx"]),
    ("nncf", ["export", "RUN", "a.xml", "--precision", "int8", "--calibrate", "DATA"]),
    ("pyarrow", ["features", "RUN", "DATA", "--out", "f.parquet"]),
    ("tensorboard", ["train", "DATA", "--out", "new", "--model", "inception_v1", "--set", "log.trackers=tensorboard"]),
    ("mlflow", ["train", "DATA", "--out", "new", "--model", "inception_v1", "--set", "log.trackers=mlflow"]),
    ("wandb", ["train", "DATA", "--out", "new", "--model", "inception_v1", "--set", "log.trackers=wandb"]),
    ("datasets", ["train", "hf:nobody/nothing", "--out", "new", "--model", "inception_v1.slim"]),
    ("huggingface_hub", ["predict", "hf:nobody/nothing", "IMAGE"]),
]


@pytest.mark.parametrize(("package", "line"), [*QUICK, *(pytest.param(*one, marks=pytest.mark.slow) for one in SLOW)])
def test_what_is_asked_for_is_checked_before_any_work(
    package: str, line: list[str], run: Path, colours: Path, tmp_path: Path, with_torch: Forked
) -> None:
    folder = broken(tmp_path / "packages", package, OTHER_TORCH)
    places = {"RUN": str(run), "DATA": str(colours), "IMAGE": str(next(colours.rglob("*.png")))}
    (tmp_path / "work").mkdir()
    done = with_torch(
        "from inceptionnet.cli import main; main()", *(places.get(word, word) for word in line),
        cwd=tmp_path / "work", env=os.environ | {"PYTHONPATH": str(folder)}, absent=[package],
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert (
        "cannot be imported (RuntimeError: operator torchvision::nms does not exist); repair it with: pip"
        in done.stderr
    )
    assert list((tmp_path / "work").iterdir()) == [], "nothing has been done"
