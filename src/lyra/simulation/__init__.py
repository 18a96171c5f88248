"""A still scene for robots: its level and metres, surface, collider, and what a camera in it sees and touches."""
