"""Training: the recipes, the loop and the run folder."""
