"""A model measured: outputs on disk, rates with intervals, the safety tax between two models."""
