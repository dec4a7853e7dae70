"""Weights files: a file is enough to predict, since network, classes and preprocessing travel in it.

This package's own (native.py), and every published layout of other libraries, recognised by its names and mapped.
"""

from inceptionnet.weights.convert import convert
from inceptionnet.weights.native import Record, save_weights
from inceptionnet.weights.reading import Report, WeightsFile, load_model, read_record, read_weights

__all__ = ["Record", "Report", "WeightsFile", "convert", "load_model", "read_record", "read_weights", "save_weights"]
