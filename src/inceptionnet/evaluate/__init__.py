"""Measuring a network on labelled images, and using it on unlabelled ones."""
