"""The optimizers of `sft.optimizer`, a file each: its `OPTIMIZER` is an `OptimizerSpec`; the file's name is the key's value."""
