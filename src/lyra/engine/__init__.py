"""The steps from an input to Gaussians, used by everything that needs any of them."""
