"""Scenes for other programs: every format that splats are written to and read from, by kept libraries."""
