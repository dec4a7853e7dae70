"""Evaluation on labelled images; prediction, features and FID on unlabelled ones."""
