"""What the processes of a training must have in common, which may have been started on several machines."""

from __future__ import annotations

from typing import Any

from inceptionnet.data.fingerprint import check_everywhere
from inceptionnet.errors import ConfigurationError
from inceptionnet.system.distributed import World
from inceptionnet.train.plan import Job
from inceptionnet.train.settings import value_text

OPTIONS = ("model", "recipe", "epochs", "batch_size", "accumulate", "size", "width", "seed", "splits", "group_by",
           "corrupt_images")  # fmt: skip
"""Those of a plan that must be the same; where data and weights are may differ."""


def check_same(job: Job, world: World) -> Job:
    """The job, if all processes have its options and images. All processes must call it.

    Raises:
        ConfigurationError, DataError: in all of them: some have others.
    """
    if world.size == 1:
        return job
    options: dict[str, Any] = {name: getattr(job.plan, name) for name in OPTIONS} | dict(job.recipe.items())
    first, *others = world.gather(options)
    for rank, other in enumerate(others, 1):
        for name, value in other.items():
            if value != first[name]:
                raise ConfigurationError(
                    f"{name} is {value_text(value)} in process {rank} and {value_text(first[name])} in process 0; "
                    "start all processes with the same command"
                )
    check_everywhere(job.source, world)
    return job
