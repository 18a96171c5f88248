"""Published weights to our folders: names, checkpoints, and one module a network."""
