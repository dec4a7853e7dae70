"""What the shape of the package promises."""

from __future__ import annotations

import ast
from pathlib import Path

import inceptionnet

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
    {"study"},
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


def test_the_trees_know_nothing_of_torch() -> None:
    for part in ("errors.py", "nets", "draw"):
        for file in [SOURCE / part] if part.endswith(".py") else (SOURCE / part).rglob("*.py"):
            assert "import torch" not in file.read_text(encoding="utf-8"), file
