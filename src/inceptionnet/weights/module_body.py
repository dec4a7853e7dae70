"""The body of a file that holds the modules themselves, compared with the published network.

Tensors of the same names and shapes are no proof: people set a stride, swap every ReLU for SiLU or take a pool away.
What the modules say is compared. A `forward` is not in the file: that of other authors' classes is assumed and said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from inceptionnet.errors import WeightsError, listed
from inceptionnet.nets.analysis import Row, analyse, pair
from inceptionnet.nets.spec import AvgPool, Conv, MaxPool, Network
from inceptionnet.weights.formats.stored import Module

LIBRARIES = ("torch.", "torchvision.", "timm.", "pretrainedmodels.", "facenet_pytorch.")
"""Where the classes are whose `forward` is known."""
POOLS: Mapping[str, type] = {"MaxPool2d": MaxPool, "AvgPool2d": AvgPool}
NORMS = ("BatchNorm2d", "BatchNormAct2d", "SyncBatchNorm", "FrozenBatchNorm2d")
INACTIVE = ("Dropout", "Dropout1d", "Dropout2d", "DropPath")
SLOTS = ("drop", "aa", "act")
"""What timm calls modules that are an Identity where they do nothing."""


def check_body(
    path: Path,
    modules: Mapping[str, Module],
    network: Network,
    at: Mapping[str, tuple[str, str]],
    inside: Iterable[str],
) -> list[str]:
    """What is assumed of the body's modules.

    Args:
        at: by path in the tree (`Row.path`), the file's paths of a convolution and its batch norm, "" if it has none.
        inside: the paths of all modules of the body.

    Raises:
        WeightsError: a module that computes something else than the published network has there.
    """
    rows = {row.path: row for row in analyse(network)}
    norms = {}
    for row_path, (convolution, norm) in at.items():
        row = rows[row_path]
        _check_convolution(path, convolution, modules.get(convolution), row, network)
        if norm:
            norms[norm] = row
            module = modules.get(norm)
            if module and module.name not in NORMS:
                raise _other(path, norm, module, "batch norm")
    known = {*norms, *(convolution for convolution, _ in at.values())}
    inside = list(inside)
    parents = {one.rpartition(".")[0] for one in modules}
    leaves = [one for one in inside if one not in parents and one not in known]
    for leaf in leaves:
        module, above = modules[leaf], leaf.rpartition(".")[0]
        linear = above in norms and leaf.endswith(".act") and not getattr(norms[above].node, "relu", True)
        if module.name == "Identity" and leaf.rpartition(".")[2] in SLOTS:
            if leaf.endswith(".act") and above in norms and not linear:
                raise _other(path, leaf, module, "ReLU")
        elif module.name == "ReLU":
            if linear:
                raise _other(path, leaf, module, "no activation")
        elif module.name not in (*POOLS, *INACTIVE):
            raise _other(path, leaf, module, "no such module")
    _check_pools(path, [(one, modules[one]) for one in leaves if modules[one].name in POOLS], rows.values(), network)
    own = {modules[one].name for one in inside if one in parents and not modules[one].kind.startswith(LIBRARIES)}
    return [f"forward of {listed(own)} in the body is not in the file: assumed to be the published one"] if own else []


def _check_convolution(path: Path, at: str, module: Module | None, row: Row, network: Network) -> None:
    node = row.node
    if module is None or not isinstance(node, Conv):
        return
    if module.name != "Conv2d":
        raise _other(path, at, module, "Conv2d")
    wanted: dict[str, Any] = {"stride": pair(node.stride), "dilation": (1, 1), "groups": 1, "padding_mode": "zeros"}
    if node.padding in ("same", "valid") and network.conventions.same == "symmetric":
        height, width = pair(node.kernel)
        wanted["padding"] = (height // 2, width // 2) if node.padding == "same" else (0, 0)
    _compare(path, at, module, wanted)


def _compare(path: Path, at: str, module: Module, wanted: Mapping[str, Any]) -> None:
    for name, value in wanted.items():
        held = module.attributes.get(name, value)
        held = (held, held) if isinstance(value, tuple) and isinstance(held, int) else held
        held = tuple(held) if isinstance(held, list) else held
        if held != value:
            raise WeightsError(
                f"{path}: {at} ({module.name}) with {name} {held!r}, where the published network has {value!r}; its "
                "outputs would differ"
            )


def _check_pools(path: Path, held: list[tuple[str, Module]], rows: Iterable[Row], network: Network) -> None:
    """Publishers have modules for all pools, or for those between the blocks, which are endpoints, alone."""
    pools = [row for row in rows if row.path.startswith("body.") and isinstance(row.node, MaxPool | AvgPool)]
    settings = all("kernel_size" in module.attributes for _, module in held)  # TorchScript has them in its code
    found = [_settings(module) if settings else (module.name,) for _, module in held]
    ways = []
    for some in (pools, [row for row in pools if row.depth == 1], []):
        wanted = [_wanted(row.node, network) for row in some]
        ways.append(Counter(one if settings else one[:1] for one in wanted))
    if Counter(found) in ways:
        return
    nearest = min(ways, key=lambda way: ((way - Counter(found)) + (Counter(found) - way)).total())
    for (at, module), one in zip(held, found, strict=True):
        if one not in nearest:
            raise _other(path, at, module, f"no pool of {_words(one)}")
    missing = listed(map(_words, (nearest - Counter(found)) + (Counter(found) - nearest)), last="and")
    raise WeightsError(f"{path}: its body has {len(held)} pools, where the published network has {nearest.total()} "
                       f"({missing}); its outputs would differ")  # fmt: skip


def _settings(module: Module) -> tuple[Any, ...]:
    held = module.attributes
    kernel, stride, padding = (
        value[0] if isinstance(value, tuple | list) and len({*value}) == 1 else value
        for value in (held.get("kernel_size"), held.get("stride"), held.get("padding", 0))
    )
    counts = module.name == "AvgPool2d" and padding and held.get("count_include_pad", True)
    stride = stride or kernel
    ceil = bool(held.get("ceil_mode")) and stride != 1  # of no effect at stride 1
    return module.name, kernel, stride, padding, ceil, bool(counts)


def _wanted(node: Any, network: Network) -> tuple[Any, ...]:
    name = next(name for name, kind in POOLS.items() if isinstance(node, kind))
    padding = node.kernel // 2 if node.padding == "same" else 0
    counts = bool(name == "AvgPool2d" and padding and network.conventions.average_counts_padding)
    return name, node.kernel, node.stride, padding, node.padding in ("ceil", "after"), counts


def _words(settings: tuple[Any, ...]) -> str:
    if len(settings) == 1:
        return str(settings[0])
    _, kernel, stride, padding, ceil, _ = settings
    return f"{settings[0]} {kernel}×{kernel}, stride {stride}, padding {padding}{', ceil_mode' * ceil}"


def _other(path: Path, at: str, module: Module, wanted: str) -> WeightsError:
    return WeightsError(
        f"{path}: {at} ({module.name}) is in the body, where the published network has {wanted}; its outputs would "
        "differ"
    )
