"""Whole runs: what a user decides, the folder of a run, and every file of a scene."""
