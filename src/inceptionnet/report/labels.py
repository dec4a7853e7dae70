"""A page of the images whose labels look wrong: thumbnails, the label that is the least probable first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inceptionnet.data.bands import Pixels
from inceptionnet.data.splits import Split
from inceptionnet.evaluate.label_ranking import LabelRanking
from inceptionnet.report.html import from_template, write_html
from inceptionnet.report.images import whole, within_budget

MOST = 300
"""Thumbnails of a page; their size is limited too."""
SIDE_PX = 200


@dataclass(frozen=True)
class Thumbnail:
    """An image of the ranking; the whole of it, not what the network sees."""

    rank: int
    name: str
    split: str
    label: str
    predicted: str
    label_probability: float
    predicted_probability: float
    image: str
    """WebP file in base64."""


def write_labels(path: Path, ranking: LabelRanking, images: Split, *, title: str, notes: Sequence[str]) -> int:
    """Write the page: up to MOST images whose predicted class is not their label.

    Args:
        images: what the positions of the ranking refer to.
        notes: how the ranking was made, and what to know before it is believed; one sentence each.

    Returns: the number of images on it.

    Raises:
        MissingExtraError: jinja2 is not installed.
        RunError: the file cannot be written; an existing file is unchanged.
    """
    shown = thumbnails(ranking, images)
    content = {"title": title, "notes": notes, "ranking": ranking, "shown": shown}
    write_html(path, from_template("labels.html", content))
    return len(shown)


def thumbnails(ranking: LabelRanking, images: Split) -> list[Thumbnail]:
    """The images on the page."""

    def pixels(i: int) -> Pixels:
        return whole(images, int(ranking.positions[i]), SIDE_PX)

    return [
        Thumbnail(
            i + 1,
            ranking.names[i],
            ranking.splits[i],
            ranking.classes[ranking.labels[i]],
            ranking.classes[ranking.predicted[i]],
            float(ranking.label_probability[i]),
            float(ranking.predicted_probability[i]),
            text,
        )
        for i, text in within_budget(ranking.differing[:MOST].tolist(), pixels, SIDE_PX, 75)
    ]
