"""Plots of a run, and the report: one HTML page with metrics, charts and images.

`plots` draws the PNG files of the run folder, `page` writes the report; `charts` and `images` make its content.
"""
