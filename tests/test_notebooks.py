"""The notebooks of examples/notebooks run, and show what their text says. They are kept without outputs."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import inceptionnet

NOTEBOOKS = sorted((Path(__file__).parent.parent / "examples" / "notebooks").glob("*.ipynb"))
SOURCE = Path(inceptionnet.__file__).parent.parent


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}
    assert notebook.cells[0].source.startswith("# ")
    first = code[0].source
    assert 'if "google.colab" in sys.modules:' in first and '%pip install --quiet "inceptionnet[' in first


@pytest.fixture
def printed(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a notebook prints, run in a kernel of its own, which finds the package under test."""
    (path,) = (path for path in NOTEBOOKS if path.stem == request.param)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    # A kernel that is described here: none needs to be installed for the user, nor is one that is there used.
    kernel = tmp_path / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(
        f'{{"argv": ["{sys.executable}", "-m", "ipykernel_launcher", "-f", "{{connection_file}}"], '
        '"display_name": "Python 3", "language": "python"}'
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    notebook = read(path)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert kinds & {"image/png", "image/svg+xml"}, "no figure"
    return "".join(output.text for output in outputs if output.get("name") == "stdout")


def percents(pattern: str, text: str) -> list[float]:
    return [float(found) for found in re.findall(pattern, text)]


@pytest.mark.slow
@pytest.mark.parametrize("printed", ["fine_tune"], indirect=True)
def test_fine_tuning_is_better_than_guessing(printed: str) -> None:
    """Guessing gives 20 %; the margin holds for other random initialisations."""
    scratch, probe, tuned = percents(r"accuracy ([\d.]+)%  *\(", printed)
    assert probe > 35 and tuned > 35 and 0 <= scratch <= 100


@pytest.mark.slow
@pytest.mark.parametrize("printed", ["look_inside"], indirect=True)
def test_neighbours_look_alike(printed: str) -> None:
    """Chance gives 10 %."""
    (alike,) = percents(r"same class: ([\d.]+)%", printed)
    assert alike > 50
    assert len(re.findall(r"^inception_\S+ +\d+ +[\d.]+ M", printed, re.MULTILINE)) == 16


@pytest.mark.slow
@pytest.mark.parametrize("printed", ["claims"], indirect=True)
def test_claims_are_counted_and_judged(printed: str) -> None:
    assert "equal channels: saving 28%" in printed
    (parameters,) = percents(r"less than 25 million parameters: ([\d.]+)", printed)
    assert parameters < 25
    assert len(re.findall(r"points \(.*\): (holds|does not hold|undecided)", printed)) == 2
