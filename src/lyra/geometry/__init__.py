"""Cameras, trajectories and Gaussians: tensors with names, and what is computed of them alone."""
