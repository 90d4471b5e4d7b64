"""Optimizers of small models, and a step on random tokens, for tests."""

import torch

from dgr_lightning.config import SftConfig
from dgr_lightning.training.optimizer import OPTIMIZERS


def step(model, optimizer, seed: int) -> float:
    """One step on a batch of random tokens; returns the loss before it."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, 96, (3, 24), generator=generator)
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def build(model, sft: SftConfig, precision: str) -> torch.optim.Optimizer:
    return OPTIMIZERS.get(sft.optimizer).build(model, sft, precision)


def recipe(name: str, **changes) -> SftConfig:
    return SftConfig(**{"optimizer": name, "lr": 5e-3, "weight_decay": 0.1} | changes)


# Rows of 128 and more make states of 4,096 values, which is where 8 bits begin.
WIDE = {"hidden_size": 64, "intermediate_size": 128, "tie_word_embeddings": False}
