"""Saliency maps: evidence for a class in an image, by three published methods, and overlays of them."""

from __future__ import annotations

from inceptionnet.explain.attribution import METHODS, attribute, default_layer
from inceptionnet.explain.images import overlay

__all__ = ["METHODS", "attribute", "default_layer", "overlay"]
