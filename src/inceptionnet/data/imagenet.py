"""ImageNet's 1000 classes (ILSVRC 2012) by wnid and by name, in the order of the logits of published networks.

Source: the names are WordNet 3.0's, Copyright 2006 by Princeton University, under WordNet's licence
(LICENSES/WordNet.txt). The header of `imagenet_1k.tsv` says how it was made.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from importlib.resources import files


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """The classes as WordNet IDs, the names of ImageNet's folders: `n01440764` to `n15075141`, sorted.

    Source: ILSVRC 2012; logit i of a network trained on it is the i-th of the sorted wnids.
    """
    return tuple(wnid for wnid, _ in _classes())


@cache
def imagenet_classes() -> tuple[str, ...]:
    """Unique class names: the first lemma of the synset, with its wnid if two synsets share the lemma.

    Source: WordNet 3.0, under WordNet's licence (LICENSES/WordNet.txt).
    Example:
        >>> imagenet_classes()[281], imagenet_classes()[134]
        ('tabby', 'crane (n02012849)')
    """
    times = Counter(name for _, name in _classes())
    return tuple(name if times[name] == 1 else f"{name} ({wnid})" for wnid, name in _classes())


@cache
def _classes() -> tuple[tuple[str, str], ...]:
    """(wnid, first lemma) of each class."""
    text = files("inceptionnet.data").joinpath("imagenet_1k.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines() if not line.startswith("#"))
    return tuple((wnid, lemmas.split(", ")[0]) for wnid, lemmas in rows)
