"""Training of every part: one loop, and one module a part that says what its loss is."""
