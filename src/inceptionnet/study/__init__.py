"""Comparisons of finished runs and experiments over random seeds: their statistics, curves and pages."""
