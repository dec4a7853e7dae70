"""Write the pages of docs/studies from studies that have been run: figures, verdict, tables, cost and command.

python benchmarks/study_page.py docs/studies STUDY_FOLDER...

STUDY_FOLDER is what `inceptionnet study --out` made. Run this where the trainings ran, since it names the processor.
The words about a result are in docs/studies.md.
"""

import json
import sys
from pathlib import Path

from pydantic import TypeAdapter

from inceptionnet.study.curves import draw_curves, save_figure
from inceptionnet.study.figures import curves_of, draw_differences
from inceptionnet.study.page import DIFFERENCES, FIGURE
from inceptionnet.study.result import Outcome, judge
from inceptionnet.study.spec import Study
from inceptionnet.study.tables import Table, arm_table, comparison_table, ends_of_grids, grid_table, verdict_line
from inceptionnet.study.trainings import Asked
from inceptionnet.system.devices import cpu_says
from inceptionnet.train.run import Run


def markdown(table: Table) -> str:
    """A table in Markdown, without columns that have nothing in them."""
    columns, rows = table
    kept = [i for i in range(len(columns)) if any(row[i] not in ("", "–") for row in rows)]
    lines = [[columns[i] for i in kept], ["---"] * len(kept), *([row[i] for i in kept] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(folder: Path, target: Path) -> Path:
    """The page of one study, its figures beside it."""
    about = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    study = Study(**about["study"])
    outcomes = TypeAdapter(list[Outcome]).validate_python(
        [{key: value for key, value in one.items() if key != "minutes"} for one in about["result"]["trainings"]]
    )
    result = judge(study, outcomes)
    seeds = len(result.judged[0].first)
    asked = about["asked"]
    named = {key: asked[key] for key in ("quick", "splits", "group_by", "base", "settings") if asked.get(key)}
    data = Path(asked["data"]).name
    command = Asked(asked["study"], data, seeds, **named).command(Path(f"studies/{folder.name}"))
    name = Path(asked["study"]).stem
    figures = {FIGURE: draw_curves(curves_of(study, result)), DIFFERENCES: draw_differences(result)}
    for figure, drawn in figures.items():
        save_figure(drawn, target / f"{folder.name}-{figure}", ["svg"])
    run = Run(folder / next(iter(result.runs))).about()
    minutes = sum(result.runs.values())
    took = f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"
    images = ", ".join(f"{count} {split}" for split, count in run["data"]["images"].items())
    environment = run["environment"]
    processor = cpu_says("model name") or environment["platform"]
    parts = [
        f"# {name}, on {data}" + (f", width {asked['base']['width']:g}" if "width" in asked["base"] else ""),
        f"{study.claim}" + (f" ({study.source})" if study.source else ""),
        f"**{verdict_line(result).capitalize()}.**",
        markdown(comparison_table(result)),
        f"![differences]({folder.name}-{DIFFERENCES}.svg)",
        f"![curves]({folder.name}-{FIGURE}.svg)",
        markdown(arm_table(study, result)),
    ]
    if grid_table(result)[1]:
        parts.append(markdown(grid_table(result)))
    parts += [
        f"Images: {images} of {len(run['data']['classes'])} classes; {run['data']['note']} (the first seed's). "
        f"{len(result.runs)} trainings, {took} with {environment['threads']} "
        f"thread{'s' * (environment['threads'] > 1)} of {processor}, torch {environment['torch']}.",
        *(f"- {note}" for note in [*study.notes, *ends_of_grids(study, result)]),
        f"```sh\n{command}\n```",
    ]
    path = target / f"{folder.name}.md"
    path.write_text("\n\n".join(parts).replace("\n\n- ", "\n- ") + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    place, *folders = map(Path, sys.argv[1:])
    for each in folders:
        if not (each / "study.json").is_file():
            sys.exit(f"{each}: expected a folder that `inceptionnet study --out` made, found no study.json in it")
    place.mkdir(parents=True, exist_ok=True)
    for each in folders:
        print(page(each, place))
