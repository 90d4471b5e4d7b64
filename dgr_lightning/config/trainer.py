"""Keys of `trainer`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from dgr_lightning.config.setting import AUTO, NEVER, TRAINING, Auto, setting


@dataclass
class TrainerConfig:
    """Where and how training runs. Only precision changes the trained model."""

    name: str = setting("auto", "short name", private=False, hashed=NEVER)
    accelerator: str = setting("auto", "auto: a CUDA device where there is one", choices=("auto", "cpu", "cuda"), hashed=NEVER)
    strategy: str = setting(
        "auto",
        "single: one device; ddp: each device has the whole model; fsdp: each has a shard of it; auto: fsdp on several, and "
        "on one GPU for its bf16; ddp for adapters where each device can hold the whole model",
        choices=("auto", "single", "ddp", "fsdp"),
        hashed=NEVER,
    )
    device_name: Optional[str] = setting(
        None,
        "GPU that plan=true counts with, such as H100, A100-80GB or L40S; null: the one that is here",
        private=False,
        hashed=NEVER,
    )
    devices: Optional[int] = setting(
        None, "devices per node, each with a process; null: every GPU, or one CPU process", low=1, hashed=NEVER
    )
    nodes: int = setting(1, "nodes; with more than one, torchrun starts the command on each of them", low=1, hashed=NEVER)
    precision: str = setting(
        "auto", "type of the computation; master weights stay fp32", choices=("auto", "bf16", "fp32"), hashed=TRAINING
    )
    device_memory_gib: Optional[float] = setting(
        None, "memory of a device in GiB, to plan with; null: what the GPU has (on a CPU: not planned)", above=0.0, hashed=NEVER
    )
    recompute_every: int | Auto = setting(
        AUTO,
        "activation checkpointing: recompute the activations of every n-th layer; 1: of all, 0: of none; auto: as few as fit",
        low=0,
        hashed=NEVER,
    )
    shard_size: Optional[int] = setting(
        None, "fsdp: devices that share one copy of the weights, such as those of a node (HSDP); null: all", low=2, hashed=NEVER
    )
    tensor_parallel: int = setting(
        1, "fsdp: devices that share every row, each with a part of every layer's matrices", low=1, hashed=TRAINING
    )
    reshard_after_forward: bool | Auto = setting(
        AUTO,
        "fsdp: free a layer's gathered weights between its forward and its backward pass; false: less traffic, more memory",
        hashed=NEVER,
    )
    compile: bool | Auto = setting(
        AUTO,
        "compile the model's layers: a slower start, faster steps and less memory; auto: on a GPU, where it can be done",
        hashed=NEVER,
    )
    cpu_offload: bool = setting(
        False, "fsdp: weights and optimizer state lie in the machine's memory, not the GPU's", hashed=NEVER
    )
    checkpoint_every: int | Auto = setting(
        AUTO,
        "optimizer steps between checkpoints; 0: only the end; auto: at most ten minutes of work, or as many as keep "
        "checkpoints below 2 % of the time",
        low=0,
        hashed=NEVER,
    )
    keep_checkpoints: int = setting(1, "how many of the last checkpoints are kept", low=1, hashed=NEVER)
    keep_optimizer: bool = setting(
        False,
        "keep checkpoints, optimizer states in them, of a run that is whole; else checkpoints/ is deleted, and model/ stays",
        hashed=NEVER,
    )
    max_restarts: int = setting(
        3, "times a training is restarted from its last checkpoint after one of its processes died", low=0, hashed=NEVER
    )
