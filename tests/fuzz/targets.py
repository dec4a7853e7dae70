"""Fuzzing of everything that reads files: `make fuzz`, and a short while of it in test_fuzz.py.

A target makes a few small files, a mutation changes one of them, and the reader that the commands call reads it: it
succeeds or raises an InceptionNetError of one line. Cases are numbered: a seed and a number give the same bytes.
"""

from __future__ import annotations

from . import data, images, runs, weights

TARGETS = {one.name: one for module in (weights, images, data, runs) for one in module.TARGETS}
