"""Measuring a network on labelled pictures, and using it on unlabelled ones."""
