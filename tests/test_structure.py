"""What the shape of the package promises."""

from __future__ import annotations

import ast
from pathlib import Path

import inceptionnet

from .documents import ROOT, site
from .without_torch import without_torch

SOURCE = Path(inceptionnet.__file__).parent
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


def imports(file: Path) -> set[str]:
    """The package's own parts that a file imports, for types or inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("inceptionnet"):
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return found


def test_imports_go_one_way() -> None:
    level = {part: i for i, layer in enumerate(LAYERS) for part in layer}
    parts = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts - {"__init__", "__main__", "__pycache__"} == level.keys()
    for file in SOURCE.rglob("*.py"):
        part = file.relative_to(SOURCE).parts[0].removesuffix(".py")
        if part in level:
            wrong = {other for other in imports(file) - {part} if other in level and level[other] >= level[part]}
            assert not wrong, f"{file.name} of {part} imports {wrong}"


def test_the_drawing_is_todays() -> None:
    structure = site("structure")
    places = {(column, row) for column, row, _ in structure.PACKAGES.values()}
    assert structure.PACKAGES.keys() == set().union(*LAYERS) and len(places) == len(structure.PACKAGES)
    listed = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Structure")[2]
    assert all(f"    {name}.py " in listed or f"    {name}/ " in listed for name in structure.PACKAGES)
    graph = structure.imports()
    assert graph["train"] > {"report", "registry"} and graph["errors"] == set()
    for name, others in graph.items():
        assert all(structure.PACKAGES[other][1] > structure.PACKAGES[name][1] for other in others), name
    assert structure.drawn(graph) == (ROOT / "docs" / "structure.svg").read_text(encoding="utf-8")


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
