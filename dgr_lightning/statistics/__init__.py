"""Estimates with intervals: rates, differences, ratios, bootstrap."""
