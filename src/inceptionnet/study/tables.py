"""The tables of a study, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from inceptionnet.study.result import Judged, Outcome, Result
from inceptionnet.study.spec import Study
from inceptionnet.study.statistics import MOST_SEEDS
from inceptionnet.train.settings import value_text

Table = tuple[list[str], list[list[str]]]


def arm_table(study: Study, result: Result) -> Table:
    """A row for each arm, with means over the seeds and their range; of a grid only the chosen value.

    A study of dead features has the step of the first evaluation that found one.
    """
    top5 = any("val_top5" in row for one in result.outcomes for row in one.rows)
    judged_by = "mAP" if is_multi_label(result.outcomes) else "top-1 error"
    columns = ["arm", "network", "width", "px", "parameters (M)", "multiply-adds (M)", "epochs", judged_by]
    columns += [*(["top-5 error"] if top5 else []), "dead features"]
    dying = study.figure == "dead_features"
    columns += [*(["first dead at step"] if dying else []), "minutes", "in the paper"]
    rows = []
    for name, arm in study.arms.items():
        found = result.of(name)
        first = found[0]
        title = f"{name} ({first.value})" if first.value else name
        own = not first.members  # an ensemble has none of these
        rows.append([
            title, first.network, f"{first.width:g}" if own else "–", str(first.size_px) if own else "–",
            f"{first.parameters / 1e6:.2f}", f"{first.multiply_adds / 1e6:.0f}", str(first.epochs) if own else "–",
            _accuracy(found, "top1"), *([_accuracy(found, "top5")] if top5 else []),
            f"{mean(one.curve('dead_features')[-1] for one in found):.0%}" if own else "–",
            *([_first_dead(found) if own else "–"] if dying else []),
            f"{mean(one.minutes for one in found):.1f}" if own else "–", arm.paper or "–",
        ])  # fmt: skip
    return columns, rows


def comparison_table(result: Result) -> Table:
    """A row for each comparison: the claim, the difference with its interval, and the verdict."""
    level = f"{100 * result.judged[0].difference.level:.3g} %"
    columns = ["claim", "verdict", "compared", f"difference, points ({level} interval)", "of interest from"]
    return columns, [
        [
            one.comparison.words or "–",
            verdict(one),
            one.comparison.title,
            interval(one),
            f"{100 * one.comparison.margin:g}",
        ]
        for one in result.judged
    ]


def grid_table(result: Result) -> Table:
    """A row for each value of each grid; none without grids."""
    values = dict.fromkeys((one.arm, one.value) for one in result.outcomes if one.value)
    rows = []
    for arm, value in values:
        found = [one for one in result.outcomes if (one.arm, one.value) == (arm, value)]
        rows.append([arm, value, _accuracy(found, "top1"), "chosen" if result.chosen[arm] == value else ""])
    return ["arm", "value", "mAP" if is_multi_label(result.outcomes) else "top-1 error", ""], rows


def ends_of_grids(study: Study, result: Result) -> list[str]:
    """A sentence for each arm whose chosen value is the lowest or the highest of its grid, which may be too narrow."""
    said = []
    for name, arm in study.arms.items():
        for key, values in arm.grid.items():
            numbers = {value for value in values if type(value) in (int, float)}
            for extreme, end, beyond in ((min, "lowest", "lower"), (max, "highest", "higher")):
                if len(numbers) > 1 and f"{key}={value_text(extreme(numbers))}" in result.chosen[name].split(" "):
                    said.append(f"{name} has the {end} {key} of its grid: a {beyond} one may be better.")
    return said


def interval(one: Judged) -> str:
    """The mean difference and its interval, in points."""
    found = one.difference
    if len(found.differences) == 1:
        return f"{100 * found.mean:+.1f} (no interval of one seed)"
    return f"{100 * found.mean:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def verdict(one: Judged) -> str:
    """The verdict, and what would decide an undecided one."""
    if one.decision.verdict != "undecided":
        return one.decision.verdict
    now = len(one.difference.differences)
    needed = one.decision.seeds_needed
    if needed is None:
        return f"undecided, over {MOST_SEEDS} seeds would be needed"
    more = needed - now
    return f"undecided, {more} more seed{'s' if more > 1 else ''} would be needed"


def verdict_line(result: Result) -> str:
    """The verdict of the study, in one line."""
    most = max((one.decision.seeds_needed or 0 for one in result.judged), default=0)
    needed = f"; --seeds {most} might decide it" if result.verdict == "undecided" and most else ""
    return f"verdict: {result.verdict}{needed}"


def is_multi_label(outcomes: Sequence[Outcome]) -> bool:
    """Whether the trainings are judged by mean average precision."""
    return any("val_map" in row for one in outcomes for row in one.rows)


def _first_dead(found: Sequence[Outcome]) -> str:
    """The range over the seeds of the step of the first evaluation with dead features, and how many have none."""
    first = [next((int(row["step"]) for row in one.rows if row["epoch"] and row["dead_features"]), 0) for one in found]
    steps = sorted(filter(None, first))
    stopped = sum(not step and bool(one.error) for step, one in zip(first, found, strict=True))
    never = len(found) - len(steps) - stopped
    parts = [" to ".join(f"{step:,}" for step in dict.fromkeys((steps[0], steps[-1])))] if steps else []
    parts += [f"{count} {what}" for count, what in ((never, "never"), (stopped, "stopped before")) if count]
    return ", ".join(parts)


def _accuracy(found: Sequence[Outcome], what: str) -> str:
    """Mean and range over the seeds: of the error in percent, or of the mean average precision."""
    values = [one.curve(what)[-1] for one in found]
    if is_multi_label(found):
        spread = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
        return f"{mean(values):.3f}{spread}"
    errors = [100 * (1 - value) for value in values]
    spread = f" ({min(errors):.1f} to {max(errors):.1f})" if len(errors) > 1 else ""
    return f"{mean(errors):.1f} %{spread}"
