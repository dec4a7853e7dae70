"""The main Python API: a network with its weights, classes, preprocessing and engine as one object, and what makes it.

`load` opens whatever holds a network, and `Classifier` answers questions about images. `evaluating` compares several on
labelled images; it imports the libraries of the metrics, so it is imported only where it is needed. The commands are
thin over these. Nothing here imports torch but backends.py and evaluating.py.
"""

from __future__ import annotations

from inceptionnet.classifier.classifier import Classifier, HeatMap
from inceptionnet.classifier.loading import described, load

__all__ = ["Classifier", "HeatMap", "described", "load"]
