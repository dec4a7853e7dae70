"""Weights files: a file is enough to predict, since network, classes and preprocessing travel in it."""

from inceptionnet.weights.native import Record, load_model, read_record, save_weights

__all__ = ["Record", "load_model", "read_record", "save_weights"]
