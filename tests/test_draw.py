"""The drawing says what the tree says, and nothing in it stands on anything else."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from math import dist
from xml.etree import ElementTree

import pytest

from inceptionnet.draw import svg
from inceptionnet.draw.marks import Box, Label, Line, Mark
from inceptionnet.draw.page import page
from inceptionnet.nets import NETWORKS
from inceptionnet.nets.analysis import Row, analyse, endpoints
from inceptionnet.nets.chains import leaves
from inceptionnet.nets.edits import Configuration, configure
from inceptionnet.nets.spec import (
    AdaptiveAvgPool,
    AvgPool,
    Branches,
    Conv,
    Leaf,
    Linear,
    MaxPool,
    Network,
    Node,
    Residual,
    SeparableConv,
)

CASES = {
    **{name: configure(Configuration(name)) for name in NETWORKS},
    **{f"{name} with aux": network for name, network in NETWORKS.items() if network.aux},
    "narrow": configure(Configuration("inception_resnet_v1", width=0.25, input_size=79, num_classes=10)),
    "wide": configure(Configuration("inception_v1", width=2, input_size=600, num_classes=21841, aux=True)),
    "small": configure(Configuration("inception_v4", width=0.1, input_size=151, num_classes=1, aux=True)),
}
every_network = pytest.mark.parametrize("network", CASES.values(), ids=CASES)

Rect = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class Drawn:
    """A rectangle of the SVG with the lines of text that follow it and stand in its middle."""

    rect: Rect
    text: tuple[str, ...]

    def holds(self, x: float, y: float) -> bool:
        """Whether the point is inside."""
        left, top, right, bottom = self.rect
        return left < x < right and top < y < bottom


@dataclass(frozen=True)
class Panel:
    """One kind of module, read back from the SVG: what its boxes say, and its table by name of member."""

    names: list[str]
    boxes: list[tuple[str, ...]]
    table: dict[str, dict[str, str]]

    def filters(self, name: str) -> list[int]:
        """The filters of all convolutions and linear layers as a reader would find them for this member."""
        figures = [
            text[-1].split(", ")[1 if len(text) == 1 else 0]
            for text in self.boxes
            if any(word in text[0] for word in ("conv", "linear", "fully connected"))
        ]
        return sorted(int(self.table.get(name, {}).get(figure, figure)) for figure in figures)


def parsed(network: Network) -> tuple[list[Drawn], list[tuple[float, float, str]]]:
    """Boxes and free text of the drawing, read from its XML."""
    boxes: list[Drawn] = []
    labels: list[tuple[float, float, str]] = []
    for element in ElementTree.fromstring(svg(network)):
        tag = element.tag.rpartition("}")[2]
        if tag == "rect" and "x" in element.attrib:
            x, y, width, height = (float(element.attrib[key]) for key in ("x", "y", "width", "height"))
            boxes.append(Drawn((x, y, x + width, y + height), ()))
        elif tag == "text":
            assert element.text
            if element.attrib["text-anchor"] == "middle":
                boxes[-1] = replace(boxes[-1], text=(*boxes[-1].text, element.text))
            else:
                labels.append((float(element.attrib["x"]), float(element.attrib["y"]), element.text))
    return boxes, labels


def text_of(network: Network) -> list[str]:
    """Every piece of text in the drawing."""
    boxes, labels = parsed(network)
    return [line for box in boxes for line in box.text] + [text for _, _, text in labels]


def panels(network: Network) -> dict[str, Panel]:
    """The panels of the drawing by their titles."""
    order = [row.name for row in endpoints(analyse(network))] + [f"aux.{on}" for on in network.aux]
    boxes, labels = parsed(network)
    found: dict[str, Panel] = {}
    # A panel is a frame without text and its title's strip, which begins at the same corner.
    for frame, strip in pairwise(boxes):
        if frame.text or strip.text or frame.rect[:3] != strip.rect[:3]:
            continue
        title = next(text for x, y, text in labels if strip.holds(x, y))
        inside = [
            box.text for box in boxes if box.text and frame.holds(*box.rect[:2]) and not strip.holds(*box.rect[:2])
        ]
        lines: dict[float, list[str]] = {}
        for x, y, text in labels:
            if frame.holds(x, y):
                lines.setdefault(y, []).append(text)
        heights = sorted(lines)
        heading = next((y for y in heights if lines[y][0] == "module"), None)
        table: dict[str, dict[str, str]] = {}
        for y in heights:
            if heading is not None and y > heading:
                row = dict(zip(lines[heading][1:], lines[y][1:], strict=True))
                table |= dict.fromkeys(expanded(lines[y][0], order), row)
        if title != "Notation":
            found[title] = Panel(expanded(title, order), inside, table)
    return found


def expanded(text: str, order: list[str]) -> list[str]:
    """The names that `inception_3a, 3b, 4a – 4e` stands for."""
    stem = "".join(text.split(",")[0].split(" – ")[0].rpartition("_")[:2])
    names: list[str] = []
    for part in text.split(", "):
        first, last = (name if name in order else stem + name for name in (part.split(" – ") * 2)[:2])
        names += order[order.index(first) : order.index(last) + 1]
    return names


def filters_of(node: Node, depth: int) -> list[int]:
    """The filters in a module whose input has `depth` channels."""
    own = [leaf.filters for leaf in leaves(node) if isinstance(leaf, Conv | SeparableConv | Linear)]
    return sorted([*own, depth] if isinstance(node, Residual) else own)


def size(row: Row) -> str:
    return f"{row.output.height}×{row.output.width}×{row.output.channels}"


@every_network
def test_it_is_one_valid_element_of_its_own(network: Network) -> None:
    root = ElementTree.fromstring(svg(network))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.attrib["viewBox"] == f"0 0 {root.attrib['width']} {root.attrib['height']}"
    assert [child.tag.rpartition("}")[2] for child in root][:2] == ["title", "desc"]
    assert (root[0].text, network.summary in (root[1].text or "")) == (network.name, True)
    assert {e.tag.rpartition("}")[2] for e in root.iter()}.isdisjoint(
        {"script", "style", "image", "use", "foreignObject"}
    )


@every_network
def test_every_endpoint_and_its_size_are_drawn(network: Network) -> None:
    text = text_of(network)
    shown = {name for panel in panels(network).values() for name in panel.names}
    for row in endpoints(analyse(network)):
        assert size(row) in text, row.name
        assert row.name in (text if isinstance(row.node, Leaf) else shown)


@every_network
def test_filters_are_the_trees(network: Network) -> None:
    rows = {row.path: row for row in analyse(network)}
    drawn = panels(network)
    assert len({name for panel in drawn.values() for name in panel.names}) == sum(len(p.names) for p in drawn.values())
    modules = {row.name: (row.node, row.input.channels) for row in endpoints(rows.values())}
    modules |= {f"aux.{on}": (head, rows[f"body.{on}"].output.channels) for on, head in network.aux.items()}
    for panel in drawn.values():
        for name in panel.names:
            assert panel.filters(name) == filters_of(*modules[name]), name


@every_network
def test_every_part_of_a_module_has_its_box(network: Network) -> None:
    """Kernels, strides and padding; the words for each are written out here once more."""
    for panel in panels(network).values():
        name = panel.names[0]
        node: Node = network.aux[name.removeprefix("aux.")] if name.startswith("aux.") else network.body[name]
        parts = list(leaves(node))
        lines = [", ".join(text) for text in panel.boxes]
        for part in parts:
            if isinstance(part, MaxPool | AvgPool | Conv):
                assert any(says(line, part) for line in lines), part
        own = 2 if isinstance(node, Branches) else 1  # input, concat
        if isinstance(node, Residual):
            own = 5 + (node.scale is not None) + node.relu  # input, concat, closing convolution, sum, output
            scales = [line for line in lines if line.startswith("× ")]
            assert scales == ([] if node.scale is None else [f"× {node.scale:g}"])
            assert lines.count("ReLU") == node.relu
        assert len(lines) == len(parts) + own


def says(line: str, part: MaxPool | AvgPool | Conv) -> bool:
    """Whether the text of a box is that of the part, whatever the number of filters."""
    height, width = part.kernel if isinstance(part.kernel, tuple) else (part.kernel, part.kernel)
    marks = " ".join(
        [f"/{part.stride}"] * (part.stride > 1)
        + ["V"] * (part.padding == "valid")
        + ["after"] * (part.padding == "after")
    )
    word = {MaxPool: "max pool", AvgPool: "avg pool", Conv: "conv"}[type(part)]
    what, *rest = line.removesuffix(", bias").split(", ")
    return what == f"{height}×{width} {word}" and rest[isinstance(part, Conv) :] == [marks] * bool(marks)


@every_network
def test_nothing_stands_on_anything(network: Network) -> None:
    drawing = page(network).drawing
    boxes = [mark for mark in drawing.marks if isinstance(mark, Box)]
    texts, frames = text_rects(drawing.marks), [rect_of(box) for box in boxes if not box.text]
    for box in boxes:
        assert all(width(line, box.size) <= box.width - 4 for line in box.text)
        assert 1.2 * box.size * len(box.text) <= box.height
    for left, top, right, bottom in texts + frames:
        assert left >= 0 <= top and right <= drawing.width and bottom <= drawing.height
    for a, b in combinations(texts, 2):
        assert not meet(a, b), (a, b)
    for a, b in combinations(frames, 2):
        apart = not meet((a[0] - 8, a[1] - 8, a[2] + 8, a[3] + 8), b)
        assert apart or a[:3] == b[:3], "only a panel's title stands on a panel"
    for frame in frames:
        for text in texts:
            assert not meet(frame, text) or within(text, frame), (frame, text)


@every_network
def test_lines_cross_neither_text_nor_each_other(network: Network) -> None:
    marks = page(network).drawing.marks
    segments = [
        (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
        for mark in marks
        if isinstance(mark, Line)
        for (x0, y0), (x1, y1) in pairwise(mark.points)
    ]
    texts = text_rects(marks)
    for segment in segments:
        assert segment[0] == pytest.approx(segment[2]) or segment[1] == pytest.approx(segment[3]), "upright or level"
        for text in texts:
            assert not meet(segment, text), (segment, text)
    for a, b in combinations(segments, 2):
        assert not meet(a, b), (a, b)


@every_network
def test_arrows_end_on_a_box(network: Network) -> None:
    marks = page(network).drawing.marks
    boxes = [mark for mark in marks if isinstance(mark, Box) and mark.text]
    ends = [mark.points[-2:] for mark in marks if isinstance(mark, Line) and mark.arrow]
    assert ends
    for start, (x, y) in ends:
        assert dist(start, (x, y)) >= 10, "shorter than its head is long, and a stem"
        assert any(
            (b.x <= x <= b.x + b.width and y == pytest.approx(b.y))
            or (x == pytest.approx(b.x) and y == pytest.approx(b.y + b.height / 2))
            for b in boxes
        )


def text_rects(marks: Iterable[Mark]) -> list[Rect]:
    """Boxes with text, and the room that free text takes."""
    rects = [rect_of(mark) for mark in marks if isinstance(mark, Box) and mark.text]
    for mark in marks:
        if isinstance(mark, Label):
            left = mark.x - width(mark.text, mark.size) * mark.to_left
            rects.append((left, mark.y - mark.size / 2, left + width(mark.text, mark.size), mark.y + mark.size / 2))
    return rects


def rect_of(box: Box) -> Rect:
    return box.x, box.y, box.x + box.width, box.y + box.height


def width(text: str, size: float) -> float:
    """In Helvetica; glyphs are some 0.55 em wide."""
    return 0.6 * size * len(text)


def meet(a: Rect, b: Rect) -> bool:
    """Whether the insides of both meet; a line has none, so two lines only meet where they cross."""
    slack = 0.01
    return a[0] + slack < b[2] and b[0] + slack < a[2] and a[1] + slack < b[3] and b[1] + slack < a[3]


def within(a: Rect, b: Rect) -> bool:
    return a[0] >= b[0] and a[1] >= b[1] and a[2] <= b[2] and a[3] <= b[3]


def test_runs_of_modules_are_one_box() -> None:
    def runs(name: str) -> list[str]:
        return [text for text in text_of(NETWORKS[name]) if " × " in text and "_" in text]

    assert runs("inception_v4") == ["4 × inception_a", "7 × inception_b", "3 × inception_c"]
    assert runs("inception_v3") == ["2 × mixed_5c – 5d", "4 × mixed_6b – 6e", "2 × mixed_7b – 7c"]
    assert runs("inception_resnet_v2.slim") == ["10 × residual_a", "20 × residual_b", "9 × residual_c"]


def test_an_auxiliary_head_ends_a_run() -> None:
    """GoogLeNet's 4a to 4c have one size, but a head stands on 4a."""
    with_heads, without = text_of(NETWORKS["inception_v1"]), text_of(CASES["inception_v1"])
    assert "2 × inception_4b – 4c" in with_heads and "3 × inception_4a – 4c" in without
    heads = {"aux.inception_4a", "aux.inception_4d"}
    assert heads <= set(with_heads) and not any("aux." in text for text in without)
    assert "aux.inception_4a, 4d" in panels(NETWORKS["inception_v1"])


def test_googlenets_table_is_the_papers() -> None:
    panel = panels(CASES["inception_v1"])["inception_3a, 3b, 4a – 4e, 5a, 5b"]
    figures = {name: tuple(int(row[letter]) for letter in "abcdef") for name, row in panel.table.items()}
    assert figures == {
        "inception_3a": (64, 96, 128, 16, 32, 32),
        "inception_3b": (128, 128, 192, 32, 96, 64),
        "inception_4a": (192, 96, 208, 16, 48, 64),
        "inception_4b": (160, 112, 224, 24, 64, 64),
        "inception_4c": (128, 128, 256, 24, 64, 64),
        "inception_4d": (112, 144, 288, 32, 64, 64),
        "inception_4e": (256, 160, 320, 32, 128, 128),
        "inception_5a": (256, 160, 320, 32, 128, 128),
        "inception_5b": (384, 192, 384, 48, 128, 128),
    }
    assert (panel.table["inception_4d"]["in"], panel.table["inception_4d"]["out"]) == ("14×14×512", "14×14×528")


def test_a_figure_that_is_one_in_the_paper_has_one_letter() -> None:
    """[v3] figure 6 has one c; 6c and 6d agree, so they share a row."""
    panel = panels(CASES["inception_v3"])["mixed_6b – 6e"]
    assert panel.table["mixed_6c"] == panel.table["mixed_6d"] == {"a": "160"}
    assert sum(text[-1] == "a" for text in panel.boxes) == 6
    assert "mixed_6c, 6d" in text_of(CASES["inception_v3"])


def test_members_that_agree_need_no_table() -> None:
    assert [name for name, panel in panels(NETWORKS["inception_v4"]).items() if panel.table] == []


def test_kinds_differ_by_more_than_figures() -> None:
    """facenet's last block has neither scale nor ReLU; v2's last module and FID's pool by maximum."""
    assert {"residual_c1 – c5", "residual_c6"} <= panels(NETWORKS["inception_resnet_v1.facenet"]).keys()
    assert panels(NETWORKS["inception_v2"])["inception_5b"].names == ["inception_5b"]
    assert {"mixed_7b", "mixed_7c"} <= panels(NETWORKS["inception_v3.fid"]).keys()


def test_a_changed_figure_becomes_a_letter() -> None:
    network = NETWORKS["inception_v4"]
    changed = network.body["inception_a2"]
    assert isinstance(changed, Branches)
    chains = {**changed.chains, "b1x1": [Conv(72)], "pool": [AvgPool(3), Conv(120)]}  # 192 filters, as before
    other = replace(network, body={**network.body, "inception_a2": Branches(**chains)})
    table = panels(other)["inception_a1 – a4"].table
    published, edited = {"a": "96", "b": "96"}, {"a": "120", "b": "72"}
    assert table == {f"inception_a{i}": edited if i == 2 else published for i in range(1, 5)}
    assert "4 × inception_a" in text_of(other)


def test_header_totals() -> None:
    """The published sizes of Inception-v3."""
    text = " ".join(text_of(NETWORKS["inception_v3"]))
    assert "23,834,568 parameters (27,161,264 with the auxiliary head) · 5.713 G multiply-adds" in text
    assert "auxiliary" not in " ".join(text_of(CASES["inception_v3"]))
    assert "arXiv:1512.00567" in text


def test_notes_say_what_the_ports_disagree_about() -> None:
    assert "Average pools do not count the padding." in text_of(NETWORKS["inception_v3"])
    assert "Average pools count the padding." in text_of(NETWORKS["inception_v3.torchvision"])
    biased = [name for name, network in NETWORKS.items() if "bias: a bias instead of batch norm." in text_of(network)]
    assert set(biased) == {name for name in NETWORKS if "resnet" in name} | {
        "inception_v2.slim",
        "inception_v2.rethinking",
    }


@pytest.mark.parametrize("change", [{"width": 0.5}, {"input_size": 331}, {"num_classes": 7}, {"residual_scale": 0.3}])
def test_every_change_shows(change: dict[str, float]) -> None:
    name = "inception_resnet_v2"
    assert svg(configure(Configuration(name, **change))) != svg(CASES[name])  # type: ignore[arg-type]


def test_residual_scales_by_stage() -> None:
    network = configure(Configuration("inception_resnet_v1", residual_scale=(0.1, 0.2, 0.3)))
    drawn = {
        title: [text[0] for text in panel.boxes if text[0][:2] == "× "] for title, panel in panels(network).items()
    }
    scales = {title: texts for title, texts in drawn.items() if texts}
    assert scales == {"residual_a1 – a5": ["× 0.1"], "residual_b1 – b10": ["× 0.2"], "residual_c1 – c5": ["× 0.3"]}


def test_trees_beyond_the_family() -> None:
    """Branches and residual blocks inside chains, and names and text that XML has other uses for."""
    network = replace(
        NETWORKS["inception_v1"],
        summary="a < b & c",
        body={
            "stem": [Conv(8, 3), MaxPool(3, 2)],
            "deep": {
                "first": Conv(8),
                "split": Branches(left=[Conv(4)], right=[[Conv(4), Branches(up=[Conv(3)], down=[Conv(5)])]]),
                "sum": Residual(Branches(only=[Conv(8, 3)], other=[Conv(2)]), scale=0.5),
                "last": Conv(16),
            },
        },
        head={"pool": AdaptiveAvgPool(), "logits": Linear(2)},
        aux={},
    )
    drawn = panels(network)
    assert [panel.boxes.count(("concat",)) for panel in drawn.values()] == [0, 1]
    assert drawn["deep"].filters("deep") == sorted([8, 4, 4, 3, 5, 8, 2, 12, 16])
    assert "a < b & c" in text_of(network)
    test_nothing_stands_on_anything(network)
    test_lines_cross_neither_text_nor_each_other(network)
    test_arrows_end_on_a_box(network)


def test_the_same_bytes_in_every_process_and_no_torch() -> None:
    program = (
        "import hashlib, sys; from inceptionnet.draw import svg; from inceptionnet.nets import NETWORKS;"
        "print(hashlib.sha256(svg(NETWORKS['inception_v4']).encode()).hexdigest(), 'torch' in sys.modules)"
    )
    here = hashlib.sha256(svg(NETWORKS["inception_v4"]).encode()).hexdigest()
    path = {"PYTHONPATH": ":".join(filter(None, sys.path)), "PYTHONHASHSEED": "7"}
    run = subprocess.run([sys.executable, "-c", program], env=path, capture_output=True, text=True, check=True)
    assert run.stdout.split() == [here, "False"]
