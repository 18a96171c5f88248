"""A scene, and films of it."""
