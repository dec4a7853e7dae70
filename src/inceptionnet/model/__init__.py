"""From a tree to a PyTorch model: its modules, their initial weights, and the one class of network."""
