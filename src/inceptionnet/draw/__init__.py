"""Drawing a network as SVG, in the style of the papers' figures: an overview, and each kind of module in detail.

Four steps, each based on the previous one: `kinds` groups the modules and labels them, `modules` draws one kind, `page`
draws the overview and arranges the modules next to it, `render` writes SVG. All shapes and counts come from
`analysis`.
"""

from __future__ import annotations

from inceptionnet.draw.page import page
from inceptionnet.draw.render import rendered
from inceptionnet.nets.spec import Network

__all__ = ["svg"]


def svg(network: Network) -> str:
    """Draw a network as a self-contained SVG image, without scripts, external fonts or files.

    Left: the network from image to logits; right: each kind of module in detail. Modules that differ only in numbers of
    filters or residual scales are of one kind: such a number is drawn as a letter, with its values in a table below.

    Raises:
        GridTooSmall: the network's image size is too small.

    Example:
        >>> from inceptionnet.nets import NETWORKS
        >>> image = svg(NETWORKS["inception_v4"])
        >>> image.startswith("<svg") and "4 × inception_a" in image
        True
    """
    return rendered(page(network))
