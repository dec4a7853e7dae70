"""A network as one drawing, as clear as the papers' figures: the whole of it, and each kind of module once in full.

Four steps, each of which only reads the one before: `kinds` says what is drawn (words, kinds of module and their
letters), `modules` draws one kind, `page` draws the whole network and places the kinds beside it, `render` writes SVG.
Every shape and count is read from `analysis`; here is no arithmetic but that of the page.
"""

from __future__ import annotations

from inceptionnet.draw.page import page
from inceptionnet.draw.render import rendered
from inceptionnet.spec import Network

__all__ = ["svg"]


def svg(network: Network) -> str:
    """The network as a self-contained SVG image: no scripts, no fonts or files from elsewhere.

    At the left the whole network from image to logits; beside it each kind of module in full. Modules are of one
    kind where their drawings differ in figures only: numbers of filters and residual scales. Such a figure is drawn as
    a letter, and a table under the drawing says what it is in each module.

    Raises:
        GridTooSmall: some part of the network has no pixel left to work on.

    Example:
        >>> from inceptionnet.nets import NETWORKS
        >>> image = svg(NETWORKS["inception_v4"])
        >>> image.startswith("<svg") and "4 × inception_a" in image
        True
    """
    return rendered(page(network))
