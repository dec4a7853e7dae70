"""Names of networks: this package's, and those that other libraries have for them (known_names.toml). No torch."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.resources import files

from inceptionnet.errors import ConfigurationError
from inceptionnet.nets import NETWORKS
from inceptionnet.weights.known import PUBLISHED, Published, published_at, published_for

NEAR = 10  # names in one message
HUB_PREFIXES = ("hf:", "hf-hub:", "hf_hub:")
"""Of an address on the hub as a name: this package's, and timm's."""


@dataclass(frozen=True)
class Named:
    """What a name means."""

    network: str
    published: Published | None
    """The file that `pretrained=True` loads; None where there is none that can be downloaded."""


def list_models(
    filter: str | Iterable[str] = "", *, pretrained: bool = False, exclude_filters: str | Iterable[str] = ""
) -> list[str]:
    """The names of all networks, paper by paper.

    Args:
        filter: patterns with `*` and `?`; a name that matches one of them is listed.
        pretrained: only networks that `create_model(name, pretrained=True)` has weights for.
        exclude_filters: patterns of names that are not listed.

    Example:
        >>> list_models()[:3]
        ['inception_v1', 'inception_v1.slim', 'inception_v1.torchvision']
        >>> list_models("*resnet*", pretrained=True)
        ['inception_resnet_v1.facenet', 'inception_resnet_v2.slim']
    """
    wanted, unwanted = _patterns(filter) or ["*"], _patterns(exclude_filters)

    def matches(name: str, patterns: list[str]) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in patterns)

    return [
        name
        for name in NETWORKS
        if matches(name, wanted) and not matches(name, unwanted) and (not pretrained or published_for(name))
    ]


def resolve(name: str) -> Named:
    """What a name means: this package's network of that name, else what the library that has the name means by it.

    Raises:
        ConfigurationError: nobody has such a name; the message lists the nearest.
    """
    if name in NETWORKS:
        return Named(name, published_for(name))
    if name in KNOWN:
        return KNOWN[name]
    for prefix in HUB_PREFIXES:
        if name.startswith(prefix):
            address = f"hf:{name.removeprefix(prefix)}"
            if published := published_at(address):
                return Named(published.network, published)
            raise ConfigurationError(f"{name!r} is not among the known published files; give it as weights={address!r}")
    near = difflib.get_close_matches(name, [*NETWORKS, *KNOWN], n=NEAR, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else "list_models() gives the names"
    raise ConfigurationError(f"unknown network {name!r}: {hint}")


def no_published(name: str, network: str) -> ConfigurationError:
    """The error for a network of which there is no published file to download; it names those of its relatives."""
    family = network.partition(".")[0]
    others = [other for other in list_models(pretrained=True) if other.partition(".")[0] == family]
    there = (
        f"there are those of {' and '.join(others)}"
        if others
        else f"there are: {', '.join(list_models(pretrained=True))}"
    )
    return ConfigurationError(f"pretrained=True: no published weights of {name} can be downloaded; {there}")


def _patterns(text: str | Iterable[str]) -> list[str]:
    return [pattern for pattern in ([text] if isinstance(text, str) else text) if pattern]


def _read() -> dict[str, Named]:
    text = files("inceptionnet.registry").joinpath("known_names.toml").read_text(encoding="utf-8")
    by_name = {one.name: one for one in PUBLISHED}
    return {
        name: Named(row["network"], by_name[row["published"]] if "published" in row else published_for(row["network"]))
        for library in tomllib.loads(text).values()
        for name, row in library.items()
    }


KNOWN = _read()
"""Other libraries' names."""
