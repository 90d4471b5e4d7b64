"""Judges decide whether an answer refuses; one file each, chosen with `judge.name`."""
