"""Pickles with objects other than tensors, read without importing or calling what they name.

Every class or function of a pickle that is not on a short list of data types becomes a `Thing`: its name, its
attributes and its items. A whole module (`torch.save(model)`, a TorchScript archive) is a tree of them, which gives the
state dict, and the kind of every module in it.
"""

from __future__ import annotations

import codecs
import io
import pickle
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inceptionnet.weights.formats.stored import Module

DANGEROUS = frozenset({
    "os", "posix", "nt", "subprocess", "sys", "shutil", "socket", "importlib", "runpy", "pty", "code", "timeit",
    "webbrowser", "ctypes", "asyncio", "multiprocessing", "pickle", "_pickle", "dill", "cloudpickle",
    "commands", "platform", "operator", "bdb", "pdb", "pip",
})  # fmt: skip
"""Modules that no weights file names except to run code; a file that does is refused, although nothing would run."""
DANGEROUS_BUILTINS = frozenset({
    "eval", "exec", "compile", "open", "setattr", "delattr", "__import__", "breakpoint", "input",
})  # fmt: skip
SAFE: Mapping[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "torch.Size": torch.Size,
    "torch.device": torch.device,
    "torch._utils._rebuild_tensor": torch._utils._rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": torch._utils._rebuild_tensor_v2,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "_codecs.encode": codecs.encode,
    **{f"builtins.{kind.__name__}": kind for kind in (set, frozenset, list, dict, tuple, int, float, bool, str)},
    **{f"__builtin__.{kind.__name__}": kind for kind in (set, frozenset, list, dict, tuple, int, float, bool, str)},
    **{f"torch.{name}": value for name, value in vars(torch).items() if isinstance(value, torch.dtype)},
}


class Refused(Exception):
    """The pickle names something that can only serve to run code."""


class Thing(dict[Any, Any]):
    """An object of a class that is not imported: its name, attributes and items."""

    kind = ""
    """Module and name of the class."""

    def __new__(cls, *_: Any, **__: Any) -> Thing:  # noqa: D102
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()
        self.state: dict[Any, Any] = {}
        self.values_in_order: list[Any] = []

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, Mapping):
                self.__dict__.setdefault("state", {}).update(part)

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)

    def append(self, value: Any) -> None:
        """An item of a list's subclass."""
        self.__dict__.setdefault("values_in_order", []).append(value)

    def extend(self, values: Any) -> None:
        """Items of a list's subclass."""
        self.__dict__.setdefault("values_in_order", []).extend(values)

    add = append

    @property
    def attributes(self) -> dict[Any, Any]:
        """What the object's `__dict__` held."""
        held: dict[Any, Any] = self.__dict__.get("state", {})
        return held


class Unpickler(pickle.Unpickler):
    """An unpickler that imports nothing and calls nothing but constructors of tensors and plain data."""

    def find_class(self, module: str, name: str) -> Any:
        """The data type of that name, or a class of `Thing`."""
        whole = f"{module}.{name}"
        if whole in SAFE:
            return SAFE[whole]
        top = module.partition(".")[0]
        if top in DANGEROUS or (top in ("builtins", "__builtin__") and name in DANGEROUS_BUILTINS):
            raise Refused(whole)
        if whole in ("copyreg._reconstructor", "copy_reg._reconstructor"):
            return lambda kind, *_: kind() if isinstance(kind, type) and issubclass(kind, Thing) else Thing()
        return type(name, (Thing,), {"kind": whole})


class Restricted:
    """This module's unpickler in the shape that `torch.load` asks of a `pickle_module`."""

    __name__ = "pickle"
    Unpickler: type[pickle.Unpickler] = Unpickler
    UnpicklingError: type[Exception] = pickle.UnpicklingError

    @staticmethod
    def load(file: Any, **options: Any) -> Any:
        """As `pickle.load`."""
        return Unpickler(file, **options).load()


class _Script(Unpickler):
    """Of a TorchScript archive, whose tensors are records beside the pickle."""

    def __init__(self, reader: Any) -> None:
        super().__init__(io.BytesIO(reader.get_record("data.pkl")))
        self.reader = reader
        self.held: dict[str, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name.endswith("Storage") and (kind := getattr(torch, name, None)) is not None:
            return kind
        return super().find_class(module, name)

    def persistent_load(self, saved: Any) -> Any:
        _, kind, key, _, numel = saved
        dtype = torch.uint8 if kind is torch.UntypedStorage else kind.dtype
        if key not in self.held:
            size = numel * dtype.itemsize
            storage = self.reader.get_storage_from_record(f"data/{key}", size, torch.UntypedStorage)
            untyped = storage._typed_storage()._untyped_storage
            typed = torch.storage.TypedStorage  # what torch's own constructors of tensors take
            self.held[key] = typed(wrap_storage=untyped, dtype=dtype, _internal=True)  # type: ignore[no-untyped-call]
        return self.held[key]


def unpickled(path: Path, *, zipped: bool, module: Any = Restricted) -> Any:
    """The content of a file of torch.save, with a `Thing` for every object that is not plain data.

    Args:
        module: has the unpickler; torch's own refuses what is not plain data.

    Raises:
        ValueError: torch would load it as a TorchScript archive, with its code.
    """
    if zipped and "constants.pkl" in torch._C.PyTorchFileReader(str(path)).get_all_records():
        raise ValueError("a TorchScript archive by a name that its list of members does not have")
    return torch.load(path, map_location="cpu", weights_only=False, pickle_module=module, mmap=zipped)


def unpickled_script(path: Path) -> Any:
    """The module tree of a TorchScript archive; its code is not read."""
    return _Script(torch._C.PyTorchFileReader(str(path))).load()


def is_module(value: Any) -> bool:
    """Whether this is a pickled torch.nn.Module, or a module of a TorchScript archive."""
    return isinstance(value, Thing) and ("_modules" in value.attributes or value.kind.startswith("__torch__."))


def modules_of(root: Thing) -> Iterator[tuple[str, Module, dict[str, Tensor]]]:
    """By path, in order of definition: every module of a tree, and its own tensors by name."""
    yield from _walk(root, "", set())


def _walk(thing: Thing, path: str, above: set[int]) -> Iterator[tuple[str, Module, dict[str, Tensor]]]:
    if id(thing) in above:
        return
    held = thing.attributes
    tables = [table for key in ("_parameters", "_buffers") if isinstance(table := held.get(key), Mapping)]
    own = tables if "_modules" in held else [held]
    left_out = held.get("_non_persistent_buffers_set", set())
    tensors = {str(n): t for table in own for n, t in table.items() if isinstance(t, Tensor) and n not in left_out}
    plain = {str(n): v for n, v in held.items() if isinstance(v, str | int | float | bool | tuple | list | None)}
    yield path, Module(thing.kind.removeprefix("__torch__."), plain), tensors
    children = held.get("_modules") if "_modules" in held else {n: c for n, c in held.items() if is_module(c)}
    for name, child in children.items() if isinstance(children, Mapping) else ():
        if isinstance(child, Thing):
            yield from _walk(child, f"{path}.{name}" if path else str(name), above | {id(thing)})
