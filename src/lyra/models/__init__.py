"""A model: its parts, its folder, and how it is made."""
