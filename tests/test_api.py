"""The public API is what api.txt says: names, parameters with their types and defaults, attributes of classes.

It is read from the source, so it is the same for every version of Python and torch, and without what their base classes
give. Write it anew with `python -m tests.test_api`, and say in the changelog what changed (CONTRIBUTING.md).
"""

from __future__ import annotations

import difflib
import re
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import griffe
import pytest

import inceptionnet

from .documents import ROOT, documented

SNAPSHOT = Path(__file__).with_name("api.txt")
WRITE = "python -m tests.test_api"
PUBLIC = (
    "inceptionnet",
    "inceptionnet.classifier",
    "inceptionnet.data",
    "inceptionnet.doctor",
    "inceptionnet.draw",
    "inceptionnet.errors",
    "inceptionnet.evaluate.fid",
    "inceptionnet.explain",
    "inceptionnet.nets",
    "inceptionnet.nets.spec",
    "inceptionnet.registry.create",
    "inceptionnet.registry.hub",
    "inceptionnet.registry.names",
    "inceptionnet.serve",
    "inceptionnet.study.comparison",
    "inceptionnet.weights",
)
"""The modules whose names people use: what the docs name, and every part with a list `__all__`.

So are the names that the API reference of the site documents by themselves.
"""
WIDTH = 120


@pytest.fixture(scope="module")
def package() -> griffe.Module:
    return read_package(Path(inceptionnet.__file__).parent)


def read_package(folder: Path) -> griffe.Module:
    package = griffe.load(folder.name, search_paths=[folder.parent], allow_inspection=False)
    assert isinstance(package, griffe.Module)
    return package


def module_of(package: griffe.Module, path: str) -> griffe.Module:
    module = package if path == package.name else package[path.removeprefix(f"{package.name}.")]
    assert isinstance(module, griffe.Module), f"{path} is a {module.kind}"
    return module


def found_at(package: griffe.Module, path: str) -> griffe.Object | griffe.Alias:
    """What has a name. A submodule may have the name of what is imported from it, as data/decode.py has."""
    parent, _, own = path.rpartition(".")
    found: griffe.Object | griffe.Alias = package[
        module_of(package, parent).imports.get(own, path).removeprefix(f"{package.name}.")
    ]
    return found


def names_of(module: griffe.Module) -> list[str]:
    """Of `__all__`, else every name without underscore that the module itself defines."""
    stated = getattr(import_module(module.path), "__all__", None)
    if stated is not None:
        return sorted(stated)
    return sorted(
        name
        for name, member in module.members.items()
        if not name.startswith("_") and not member.is_alias and not member.is_module and name != "log"
    )


def signature(name: str, function: griffe.Function) -> str:
    parts, keyword_only = [], False
    for parameter in function.parameters:
        if parameter.kind is griffe.ParameterKind.keyword_only and not keyword_only:
            parts.append("*")
        stars = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}
        keyword_only |= parameter.kind in (griffe.ParameterKind.keyword_only, griffe.ParameterKind.var_positional)
        text = (stars.get(parameter.kind, "") if parameter.kind else "") + parameter.name
        text += f": {parameter.annotation}" if parameter.annotation is not None else ""
        if parameter.default is not None and not text.startswith("*"):
            text += f" = {parameter.default}"
        parts.append(text)
    after = f") -> {function.returns}" if function.returns is not None else ")"
    line = f"{name}({', '.join(parts)}{after}"
    return line if len(line) <= WIDTH else "\n    ".join([f"{name}(", *(f"{part}," for part in parts)]) + f"\n{after}"


def described(name: str, found: griffe.Object | griffe.Alias) -> Iterator[str]:
    """The blocks of lines about a name, and about the attributes and methods of a class."""
    target = found.final_target if isinstance(found, griffe.Alias) else found
    if isinstance(target, griffe.Class):
        yield f"class {name}" + (f"({', '.join(map(str, target.bases))})" if target.bases else "")
        for inner, member in sorted({**target.inherited_members, **target.members}.items()):
            if inner == "__init__" or not inner.startswith("_"):
                yield from described(f"{name}.{inner}", member)
    elif isinstance(target, griffe.Function):
        for overload in target.overloads or [target]:
            yield signature(name, overload)
    else:
        assert isinstance(target, griffe.Attribute), f"{name} is a {target.kind}"
        kind = "property " if "property" in target.labels else ""
        yield f"{kind}{name}" + (f": {target.annotation}" if target.annotation is not None else "")


def public_api(package: griffe.Module) -> str:
    blocks: list[str] = []
    homes: dict[str, str] = {}

    def add(name: str, found: griffe.Object | griffe.Alias) -> None:
        """Describe it, or say where it is described."""
        home = homes.setdefault(found.canonical_path, name)
        blocks.extend(described(name, found) if home == name else [f"{name} = {home}"])

    for path in PUBLIC:
        for name in names_of(module_of(package, path)):
            add(f"{path}.{name}", found_at(package, f"{path}.{name}"))
    for path in sorted(documented()):
        found = found_at(package, path)
        if found.canonical_path not in homes:
            add(path, found)
    return "\n".join(blocks) + "\n"


def test_the_public_api_is_what_the_snapshot_says(package: griffe.Module) -> None:
    before, now = SNAPSHOT.read_text(encoding="utf-8"), public_api(package)
    changed = "\n".join(difflib.unified_diff(before.split("\n"), now.split("\n"), "tests/api.txt", "src", lineterm=""))
    assert before == now, f"the public API changed; `{WRITE}` writes it, and the changelog says it:\n{changed}"


def test_another_default_and_another_name_change_it(tmp_path: Path) -> None:
    """In a copy of the source, since it is read and not imported."""
    folder = Path(inceptionnet.__file__).parent
    for file in folder.rglob("*.py"):
        copy = tmp_path / folder.name / file.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    changed = tmp_path / folder.name / "classifier" / "classifier.py"
    text = changed.read_text(encoding="utf-8")
    assert "top: int = 5" in text and "def embed(" in text
    changed.write_text(text.replace("top: int = 5", "top: int = 3").replace("def embed(", "def embedded("))
    now = public_api(read_package(tmp_path / folder.name))
    gone = {line for line in SNAPSHOT.read_text(encoding="utf-8").split("\n") if line not in now.split("\n")}
    assert {line.partition("(")[0].strip() for line in gone} == {
        "inceptionnet.Classifier.embed", "top: int = 5,",
    }  # fmt: skip


def test_what_the_docs_name_is_public(package: griffe.Module) -> None:
    """A module of the package that a page, an example or hubconf.py names is in the snapshot; so is every `__all__`."""
    pages = [ROOT / "README.md", ROOT / "hubconf.py", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages if page.is_file())
    named = set()
    for path in re.findall(r"\binceptionnet(?:\.[a-z_]+)+", text):
        parts = path.split(".")
        while len(parts) > 1:
            try:
                found = package[".".join(parts[1:])]
            except KeyError:
                found = None
            if found is not None and found.is_module:
                break
            parts.pop()
        named.add(".".join(parts))
    assert len(named) > 4 and named <= {*PUBLIC}, named - {*PUBLIC}
    stating = {module.path for module in package.modules.values() if "__all__" in module.members}
    assert stating <= {*PUBLIC}, stating - {*PUBLIC}


if __name__ == "__main__":
    SNAPSHOT.write_text(public_api(read_package(Path(inceptionnet.__file__).parent)), encoding="utf-8")
