"""Experiment trackers: settings and metrics of a run in TensorBoard, MLflow or Weights & Biases, by log.trackers."""

from inceptionnet.train.trackers.subject import Subject
from inceptionnet.train.trackers.tracker import Trackers, check_installed

__all__ = ["Subject", "Trackers", "check_installed"]
