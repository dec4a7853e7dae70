"""Training: the recipe, the loop and the run folder."""
