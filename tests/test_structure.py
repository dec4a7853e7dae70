"""What the shape of the package promises."""

from __future__ import annotations

from pathlib import Path

import inceptionnet

from .documents import ROOT, site
from .without_torch import without_torch

SOURCE = Path(inceptionnet.__file__).parent
STRUCTURE = site("structure")
# A part imports only from parts further left; parts in one place do not know each other.
LAYERS = [
    {"errors"},
    {"nets", "system"},
    {"draw", "data"},
    {"model"},
    {"weights", "evaluate"},
    {"explain", "engines"},
    {"classifier"},
    {"registry", "report"},
    {"train"},
    {"study", "serve", "doctor"},
    {"cli"},
]


def test_imports_go_one_way() -> None:
    level = {part: i for i, layer in enumerate(LAYERS) for part in layer}
    parts = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts - {"__init__", "__main__", "__pycache__"} == level.keys()
    for file in SOURCE.rglob("*.py"):
        part = file.relative_to(SOURCE).parts[0].removesuffix(".py")
        if part in level:
            wrong = {
                other for other in STRUCTURE.imported(file) - {part} if other in level and level[other] >= level[part]
            }
            assert not wrong, f"{file.name} of {part} imports {wrong}"


def test_the_drawing_is_todays() -> None:
    places = {(column, row) for column, row, _ in STRUCTURE.PACKAGES.values()}
    assert STRUCTURE.PACKAGES.keys() == set().union(*LAYERS) and len(places) == len(STRUCTURE.PACKAGES)
    listed = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Structure")[2]
    assert all(f"    {name}.py " in listed or f"    {name}/ " in listed for name in STRUCTURE.PACKAGES)
    graph = STRUCTURE.imports()
    assert graph["train"] > {"report", "registry"} and graph["errors"] == set()
    for name, others in graph.items():
        assert all(STRUCTURE.PACKAGES[other][1] > STRUCTURE.PACKAGES[name][1] for other in others), name
    assert STRUCTURE.drawn(graph) == (ROOT / "docs" / "structure.svg").read_text(encoding="utf-8")


NEED_TORCH = {
    "classifier": {"backends", "evaluating"},
    "data": {"augment", "fingerprint", "loading", "order", "workers"},
}
"""What else is in parts that can be imported without torch, and what it brings."""
WITHOUT_TORCH = ("errors", "nets", "draw", "cli", "data", "classifier")
SOME_WITHOUT_TORCH = [
    "engines.kinds", "engines.sessions", "evaluate.prediction", "model.outputs", "registry.names", "system.extras",
    "system.files", "system.opening", "system.parquet_files", "system.printing", "system.progress", "system.protobuf",
    "system.zips", "weights.known", "weights.metadata", "weights.record",
]  # fmt: skip
"""Of parts that need it otherwise: what prediction by exported files takes from them, and the lists of names."""


def test_prediction_needs_no_torch() -> None:
    """Nor do networks as data, their drawings and the command line, until a command needs it."""
    modules = ["inceptionnet", *(f"inceptionnet.{name}" for name in SOME_WITHOUT_TORCH)]
    for part in WITHOUT_TORCH:
        for file in sorted((SOURCE / part).rglob("*.py")) or [SOURCE / f"{part}.py"]:
            if file.stem not in NEED_TORCH.get(part, ()):
                modules.append(".".join(("inceptionnet", *file.relative_to(SOURCE).with_suffix("").parts)))
    assert len(modules) > 90
    without_torch("from importlib import import_module\nfor name in sys.argv[1:]: import_module(name)", *modules)
    for part, names in NEED_TORCH.items():
        assert all((SOURCE / part / f"{name}.py").exists() for name in names)
