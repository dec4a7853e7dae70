"""The page of a study: claim, what was done, figures, tables, verdict, and how to repeat it."""

from __future__ import annotations

from pathlib import Path

from inceptionnet.report.html import from_template, write_html
from inceptionnet.study.curves import curve_charts, draw_curves, save_figure, themed_svg
from inceptionnet.study.figures import curves_of, draw_differences
from inceptionnet.study.result import Result
from inceptionnet.study.spec import Study
from inceptionnet.study.tables import arm_table, comparison_table, ends_of_grids, grid_table, verdict_line
from inceptionnet.train.run import Run

PAGE, FIGURE, DIFFERENCES = "index.html", "figure", "differences"


def write_page(out: Path, name: str, study: Study, command: str, result: Result) -> None:
    """Write the figures and the page of a study.

    Args:
        name: of the study.
        command: repeats it.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed.
        RunError: a file cannot be written.
    """
    curves = curves_of(study, result)
    save_figure(draw_curves(curves), out / FIGURE)
    save_figure(draw_differences(result), out / DIFFERENCES)
    charts = [chart for unit, some in curves.items() for chart in curve_charts(some, unit, name)]
    about = Run(out / result.outcomes[0].run).about()
    content = {
        "name": name, "study": study, "result": result, "command": command, "data": about["data"],
        "verdict": verdict_line(result).removeprefix("verdict: "), "charts": charts,
        "differences": themed_svg(lambda: draw_differences(result), "differences"),
        "arms": arm_table(study, result), "comparisons": comparison_table(result), "grid": grid_table(result),
        "ends": ends_of_grids(study, result),
        "seeds": len(result.judged[0].first), "trainings": len(result.runs), "minutes": sum(result.runs.values()),
        "environment": about["environment"],
    }  # fmt: skip
    write_html(out / PAGE, from_template("study.html", content))
