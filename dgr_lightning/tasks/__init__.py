"""Benchmarks and request sets, a file each; the loader; the metrics that they name."""
