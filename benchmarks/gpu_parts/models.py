"""Random models and rows of the parts, and the training of one: `SafetySft` under Lightning, prepared as `fit` prepares it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from lightning.pytorch import Callback, Trainer

from benchmarks.gpu_parts.part import Setup
from benchmarks.sft_throughput import Shape, made_rows, random_model
from dgr_lightning.config import Config, SftConfig, TrainerConfig
from dgr_lightning.distributed import fsdp
from dgr_lightning.distributed.ranks import Ranks, lightning_strategy
from dgr_lightning.models.chat import Encoded
from dgr_lightning.training.memory import MemoryPlan, RowSize, memory_plan
from dgr_lightning.training.memory_sizes import ModelOutline
from dgr_lightning.training.packing import StepLoader
from dgr_lightning.training.sft import BARE_TRAINER, SafetySft

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

DRY = Shape(512, 32, 64, 2, 4, 2, tied=False, examples=4, max_length=1200)
"""The shape of every model in a dry run."""


def encoded_rows(vocabulary: int, number: int) -> list[Encoded]:
    """Returns examples as long as those of STAR-1, of random tokens."""
    return [Encoded(ids, num_prompt) for ids, num_prompt in made_rows(vocabulary, number)]


@dataclass(frozen=True)
class Training:
    """A training of a random model.

    Attributes:
        shape: of the model; `examples` of it make a step.
        max_tokens: capacity of a row.
        steps: optimizer steps.
        recompute_every: as `trainer.recompute_every`.
        compile: as `trainer.compile`.
    """

    shape: Shape
    max_tokens: int
    steps: int
    recompute_every: int = 0
    compile: bool = False

    def loader(self) -> StepLoader:
        """Returns its steps, one epoch of them."""
        encoded = encoded_rows(self.shape.vocabulary, self.shape.examples * self.steps)
        return StepLoader(encoded, batch_size=self.shape.examples, max_tokens=self.max_tokens, seed=0, epochs=1)

    def module(self, setup: Setup) -> SafetySft:
        """Returns its model, with random weights on the device, as a LightningModule."""
        model = random_model(self.shape, str(setup.device))
        fsdp.recompute(model, self.recompute_every)
        if self.compile:
            fsdp.compile_layers(model)
        return SafetySft(model, self._sft, self.steps, "bf16")

    def memory(self, setup: Setup, config: PreTrainedConfig, loader: StepLoader) -> MemoryPlan:
        """Returns the project's own plan of its memory.

        Args:
            setup: the device.
            config: of the model.
            loader: of the steps.
        """
        cfg = Config(sft=self._sft)
        cfg.trainer = TrainerConfig(accelerator=setup.accelerator, strategy="single", devices=1, precision="bf16")
        row = loader.largest_row()
        return memory_plan(ModelOutline(config), cfg, RowSize(row.lengths, row.num_targets, row.several), self.recompute_every)

    @property
    def _sft(self) -> SftConfig:
        return SftConfig(lr=1e-4, batch_size=self.shape.examples, warmup_ratio=0.0, optimizer=self.shape.optimizer)


def run(setup: Setup, module: SafetySft, loader: StepLoader, callbacks: Sequence[Callback]) -> None:
    """Trains on one device."""
    if not setup.dry:
        torch.cuda.reset_peak_memory_stats()
    # The project's strategy: Lightning's own would move the model to the CPU in the end.
    strategy, environment = lightning_strategy(TrainerConfig(accelerator=setup.accelerator, strategy="single"), Ranks())
    trainer = Trainer(
        accelerator="cpu" if setup.dry else "gpu",
        devices=1,
        strategy=strategy,
        plugins=[environment],
        max_epochs=1,
        callbacks=list(callbacks),
        default_root_dir=setup.folder,
        **BARE_TRAINER,
    )
    trainer.fit(module, loader)
