"""The 3D cache: images with depth become points, points become partial images of new views."""
