"""`inceptionnet doctor`: what to paste into an issue, and whether the installation works."""

from __future__ import annotations

from typing import Any

import typer

from inceptionnet.cli.options import Json


def doctor(json: Json = False) -> None:
    """Say what an issue should say: versions, extras, engines, threads, cache; and test that prediction works.

    Names of user and machine are not told, nor folders in the home folder. Exit code 1 if something does not work.
    """
    from itertools import groupby

    from inceptionnet.cli.tables import print_json
    from inceptionnet.doctor import examine
    from inceptionnet.system.printing import say

    found = examine()
    problems = [finding for finding in found if finding.problem]
    if json:
        told: dict[str, Any] = {
            section: {finding.name: finding.value for finding in findings}
            for section, findings in groupby(found, key=lambda finding: finding.section)
        }
        print_json(told | {"problems": [f"{one.section}: {one.name}: {one.text}" for one in problems]})
    else:
        width = max(len(finding.name) for finding in found)
        for section, findings in groupby(found, key=lambda finding: finding.section):
            say(section)
            say(*(f"  {one.name:{width}}  {'PROBLEM: ' if one.problem else ''}{one.text}" for one in findings))
        say("", f"problems: {len(problems) or 'none'}")
    if problems:
        raise typer.Exit(1)
