"""Where in an image a network sees a class: heat maps by three published methods, and images of them."""

from __future__ import annotations

from inceptionnet.explain.attribution import METHODS, attribute, default_layer
from inceptionnet.explain.images import overlay

__all__ = ["METHODS", "attribute", "default_layer", "overlay"]
