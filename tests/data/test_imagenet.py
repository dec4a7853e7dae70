"""ImageNet's classes against what is known of them by hand, and data sets whose folders are named by wnids."""

from __future__ import annotations

from pathlib import Path

import pytest

from inceptionnet.data.imagenet import imagenet_classes, imagenet_wnids
from inceptionnet.errors import DataError
from inceptionnet.evaluate.classes import matched_labels

KNOWN = {
    0: ("n01440764", "tench"),
    1: ("n01443537", "goldfish"),
    207: ("n02099601", "golden retriever"),
    281: ("n02123045", "tabby"),
    999: ("n15075141", "toilet tissue"),
}


@pytest.mark.parametrize("number", KNOWN)
def test_known_classes(number: int) -> None:
    assert (imagenet_wnids()[number], imagenet_classes()[number]) == KNOWN[number]


def test_a_thousand_of_each_sorted_and_once() -> None:
    wnids, names = imagenet_wnids(), imagenet_classes()
    assert len(wnids) == len(set(wnids)) == 1000 and sorted(wnids) == list(wnids)
    assert len(names) == len(set(names)) == 1000 and all(name == name.strip() for name in names)


def test_what_two_classes_are_called_has_its_wnid() -> None:
    """The bird and the machine, and two bathing suits."""
    assert {name for name in imagenet_classes() if name.endswith(")")} == {
        "crane (n02012849)",
        "crane (n03126707)",
        "maillot (n03710637)",
        "maillot (n03710721)",
    }


def test_wnids_and_names_stand_for_each_other() -> None:
    assert matched_labels(["n02123045", "n01440764"], imagenet_classes()).tolist() == [281, 0]
    assert matched_labels(["toilet tissue", "crane (n03126707)"], imagenet_wnids()).tolist() == [999, 517]
    assert matched_labels(imagenet_wnids(), imagenet_classes()).tolist() == list(range(1000))
    assert matched_labels(["n02123045", "dog"], ["dog", "tabby"]).tolist() == [1, 0]


def test_a_class_of_its_own_name_comes_first() -> None:
    """A network may know both words, as classes of its own."""
    assert matched_labels(["tabby", "n02123045"], ["n02123045", "tabby"]).tolist() == [1, 0]


def test_what_is_no_class_is_named() -> None:
    with pytest.raises(DataError, match="does not have the data's class n02084071; it has tench, goldfish"):
        matched_labels(["n01440764", "n02084071"], imagenet_classes())


def test_wordnets_licence_comes_with_the_package() -> None:
    root = Path(__file__).parents[2]
    licence = (root / "LICENSES" / "WordNet.txt").read_text(encoding="utf-8")
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in licence and 'PROVIDED "AS IS"' in licence
