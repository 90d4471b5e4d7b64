"""Rows → examples: source sets, row parsing, file readers, data sets on the hub."""
