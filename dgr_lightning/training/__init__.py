"""Refined set → model: packing, loss, optimizers, adapters, checkpoints, curves, in-training evaluation, export."""
