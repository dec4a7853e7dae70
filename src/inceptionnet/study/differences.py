"""The settings in which runs differ, as run.json has them: recipe, plan, configuration and preprocessing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inceptionnet.report.page import flat

OF_PLAN = ("recipe", "weights", "seed", "batch_size", "accumulate", "corrupt_images", "splits", "group_by")
"""What is compared of the plan; its other fields are paths, the machine, or in the recipe or configuration too."""
OPTIONS = {"name": "model", "input_size": "size"}
"""Fields of the configuration with the names of their options."""


def differing_settings(abouts: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The settings that differ, by the names that `train` takes, with the value of each run.

    Paths of data and labels, and what only concerns the machine, are left out.

    Args:
        abouts: the content of each run.json.
    """
    each = [_settings(about) for about in abouts]
    names = dict.fromkeys(name for settings in each for name in settings)
    found = {name: [settings.get(name) for settings in each] for name in names}
    differing = {name: values for name, values in found.items() if any(one != values[0] for one in values)}
    # The configuration has what the recipe says of the network, or what the weights bring if it says nothing.
    return {name: values for name, values in differing.items() if f"network.{name}" not in differing}


def _settings(about: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in run.json, each once."""
    recipe = dict(flat(about["recipe"]))
    found = {OPTIONS.get(name, name): value for name, value in about["configuration"].items()}
    found |= {name: about["plan"].get(name) for name in OF_PLAN} | recipe
    preprocessing = dict(flat(about["preprocessing"], "preprocess."))
    preprocessing.pop("preprocess.size_px", None)  # the size of the configuration
    return found | {name: value for name, value in preprocessing.items() if name not in recipe}
