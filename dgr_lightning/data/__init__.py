"""Rows → examples: source sets, row parsing, file readers, datasets of the hub."""
