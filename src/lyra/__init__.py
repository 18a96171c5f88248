"""lyra: a photo, a text prompt or a video becomes a 3D or 4D Gaussian-splat scene."""
