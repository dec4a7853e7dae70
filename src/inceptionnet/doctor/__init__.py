"""What an issue should say about the machine, the installation and whether it works: `inceptionnet doctor`.

It does not tell the names of machine and user, nor folders in the home folder but as `~`; of variables of the
environment only those that it names. It fetches and sends nothing, and no file stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from inceptionnet.doctor.apart import Apart
from inceptionnet.doctor.finding import Finding, guarded, private
from inceptionnet.doctor.machine import cache, processor, versions
from inceptionnet.doctor.packages import Imports, extras, without_torch
from inceptionnet.doctor.working import data_workers, engines, self_test, threads, torch_build

LIMIT_S = 120.0
"""How long what needs torch may take, on a slow disk and a busy processor."""
WITH_TORCH: dict[str, Callable[[], Iterable[Finding]]] = {
    "torch": torch_build,
    "threads": threads,
    "engines": engines,
    "data workers": data_workers,
    "self-test": self_test,
}
"""Sections in the order in which they are printed; each of them goes without the others."""


def examine() -> list[Finding]:
    """Examine the machine and the installation: what was found, section by section.

    What needs torch, and imports of other packages, run in processes of their own (on Linux), so that a library which
    ends its process is a finding too. Nothing is raised.
    """
    imports = Imports()  # they run meanwhile
    network = Apart(_with_torch)
    try:
        found = [
            *guarded("versions", versions),
            *guarded("processor", processor),
            *_followed(network),
            *guarded("cache", cache),
            *guarded("packages", partial(extras, imports)),
        ]
    finally:
        imports.end()
        network.end()
    return [private(finding) for finding in found]


def _with_torch() -> Iterator[tuple[str, list[Finding]]]:
    """Each section's findings; and before that its name alone, so that whoever waits knows what goes on.

    Where torch is missing or broken, its section says so, and the others have nothing to say.
    """
    if without_torch():
        yield "torch", [Finding("torch", "version", None, "not installed; the extras that need it say so below")]
        return
    for section, examined in WITH_TORCH.items():
        yield section, []
        yield section, (found := guarded(section, examined))
        if section == "torch" and any(finding.problem for finding in found):
            return


def _followed(network: Apart[tuple[str, list[Finding]]]) -> Iterator[Finding]:
    reached = ""
    for section, findings in network.results(LIMIT_S):
        reached = section
        yield from (Finding(*finding) for finding in findings)
    if network.ended:
        yield Finding(reached, "process", None, f"the process {network.ended} while this was examined", True)
