"""The packages that this one needs, by its own metadata: whether they are there, fit, and can be imported."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from importlib import import_module, metadata
from typing import TYPE_CHECKING

from inceptionnet.doctor.apart import Apart
from inceptionnet.doctor.finding import Finding, described
from inceptionnet.errors import listed
from inceptionnet.system.extras import importing_torchmetrics, version_of

if TYPE_CHECKING:
    from packaging.requirements import Requirement

NAME = "inceptionnet"
CORE = ""
"""In place of an extra, for what is always needed."""
DEVELOPMENT = {"docs", "test"}
"""Extras that are not for users."""
LIMIT_S = 5.0
"""How long imports may take, from the beginning; or as long as all else."""
SILENT = {"ORT_DISABLE_TELEMETRY": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
"""Variables with which packages send nothing when they are imported."""


def requirements() -> dict[str, list[Requirement]]:
    """What each extra needs, by the package's metadata. Raises: what comes of a missing or broken metadata."""
    from packaging.requirements import Requirement

    about = metadata.metadata(NAME)
    stated = [Requirement(text) for text in metadata.requires(NAME) or ()]
    needed: dict[str, list[Requirement]] = {CORE: [one for one in stated if _applies(one, CORE)]}
    for extra in about.get_all("Provides-Extra") or ():
        if extra not in DEVELOPMENT:
            needed[extra] = [one for one in stated if _applies(one, extra) and not _applies(one, CORE)]
    return needed


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def without_torch() -> bool:
    """Whether torch is not installed, and is not among what is always needed."""
    try:
        always = {one.name for one in requirements()[CORE]}
    except Exception:  # `extras` says it
        return False
    return "torch" not in always and version_of("torch") is None


class Imports:
    """Imports of all packages that are installed, one after another, in processes of their own meanwhile."""

    def __init__(self) -> None:
        self.began: float = time.monotonic()
        self.left: list[str] = []
        try:
            needed = [one.name for group in requirements().values() for one in group]
            # Those that import torch come last, so that the others are done when time is up.
            self.left = sorted({one for one in needed if one != "torch" and version_of(one)}, key=_takes_long)
        except Exception:  # `extras` says it
            return
        self._process: Apart[list[str]] = Apart(lambda: _imported(self.left))

    def errors(self) -> dict[str, str]:
        """Why packages cannot be imported, by package: empty for those that can. The others were not tried in time."""
        found: dict[str, str] = {}
        while self.left:
            for package, error in self._process.results(max(0.1, self.began + LIMIT_S - time.monotonic())):
                found[package] = error
                self.left.remove(package)
            if not self._process.crashed:
                break
            found[self.left.pop(0)] = f"importing it ends the process, which {self._process.ended}"
            self._process = Apart(lambda: _imported(self.left))
        return found

    def end(self) -> None:
        """End the process, if it has not."""
        if self.left:
            self._process.end()


def _takes_long(package: str) -> tuple[int, str]:
    later = {"torchmetrics": 1, "scikit-learn": 2, "datasets": 3, "captum": 4, "nncf": 5}
    return later.get(package.lower().replace("_", "-"), 0), package


def modules_of(package: str) -> list[str]:
    """The modules that an installed package consists of, without those whose names say that they are its own."""
    files = metadata.files(package) or []
    found = {file.parts[0] for file in files if file.parts[1:] == ("__init__.py",)}
    found |= {file.stem for file in files if len(file.parts) == 1 and file.suffix == ".py"}
    public = sorted(name for name in found if name.isidentifier() and not name.startswith("_"))
    return public or [package.replace("-", "_")]


def _imported(packages: list[str]) -> Iterator[list[str]]:
    """Each package and why it cannot be imported, if so."""
    os.environ.update({name: value for name, value in SILENT.items() if name not in os.environ})
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # else openvino writes and sends
    for package in list(packages):
        try:
            if package == "torchmetrics":
                with importing_torchmetrics():
                    pass
            else:
                for name in modules_of(package):
                    import_module(name)
        except Exception as error:  # built for another torch, a missing library …
            yield [package, described(error)]
        else:
            yield [package, ""]


def extras(imports: Imports) -> Iterator[Finding]:
    """What is needed always, and by each extra: versions, what is missing, and what cannot be imported."""
    needed = requirements()
    errors = imports.errors()
    for extra, group in needed.items():
        yield _of_group(extra, group, errors)


def _of_group(extra: str, group: list[Requirement], errors: Mapping[str, str]) -> Finding:
    found = {one.name: version_of(one.name) for one in group}
    missing = [name for name, version in found.items() if version is None]
    unfit = [f"{one.name} {version} (expected {one.specifier})" for one in group
             if (version := found[one.name]) and not one.specifier.contains(version, prereleases=True)]  # fmt: skip
    broken = {name: errors[name] for name in found if errors.get(name)}
    unknown = [name for name in found if found[name] and name not in errors and name != "torch"]
    value = {
        "installed": not (missing or unfit or broken), "versions": found, "missing": missing, "unfit": unfit,
        "broken": broken, "not_tried": unknown,
    }  # fmt: skip
    name, remedy = (extra, f"{NAME}[{extra}]") if extra else ("core", NAME)
    said = [f"{package} cannot be imported ({why})" for package, why in broken.items()]
    said += [f"missing: {listed(missing)}"] * bool(missing) + [f"unfit: {listed(unfit)}"] * bool(unfit)
    if broken:
        said.append(f"repair: pip install --force-reinstall '{remedy}'")
    elif said:
        said.append(f"pip install '{remedy}'")
    else:
        said = [", ".join(f"{package} {version}" for package, version in found.items())]
    said += [f"the time was too short to import {listed(unknown)}"] * bool(unknown)
    return Finding("packages", name, value, "; ".join(said), bool(broken or (not extra and (missing or unfit))))
