"""Random models and rows of the parts, and the training of one: `SafetySft` under Lightning, prepared as `fit` prepares it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
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
    from transformers import PreTrainedConfig, PreTrainedModel

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
        strategy: `fsdp`, as `trainer.strategy=auto` chooses on one GPU as well, or `single`: autocast.
        recompute_every: as `trainer.recompute_every`.
        compile: as `trainer.compile`.
    """

    shape: Shape
    max_tokens: int
    steps: int
    strategy: str = "fsdp"
    recompute_every: int = 0
    compile: bool = False

    def trainer(self, setup: Setup) -> TrainerConfig:
        """Returns its section of the config."""
        return TrainerConfig(accelerator=setup.accelerator, strategy=self.strategy, devices=1, precision="bf16")

    def loader(self) -> StepLoader:
        """Returns its steps, one epoch of them."""
        encoded = encoded_rows(self.shape.vocabulary, self.shape.examples * self.steps)
        size = self.shape.examples
        return StepLoader(encoded, batch_size=size, max_tokens=self.max_tokens, seed=0, epochs=1, few_lengths=self.compile)

    def module(self, setup: Setup) -> SafetySft:
        """Returns its model, with random weights on the device, as a LightningModule."""
        model = random_model(self.shape, str(setup.device))
        fsdp.recompute(model, self.recompute_every)
        if self.compile:
            fsdp.compile_layers(model)
        trainer = self.trainer(setup)

        def shard(model: PreTrainedModel) -> None:
            fsdp.shard(model, None, trainer, "bf16", setup.device)

        return SafetySft(model, self._sft, self.steps, "bf16", shard=shard if self.strategy == "fsdp" else None)

    def memory(self, setup: Setup, config: PreTrainedConfig, loader: StepLoader) -> MemoryPlan:
        """Returns the project's own plan of its memory.

        Args:
            setup: the device.
            config: of the model.
            loader: of the steps.
        """
        cfg = Config(sft=self._sft, trainer=self.trainer(setup))
        row = loader.largest_row()
        return memory_plan(ModelOutline(config), cfg, RowSize(row.lengths, row.num_targets, row.several), self.recompute_every)

    @property
    def _sft(self) -> SftConfig:
        return SftConfig(lr=1e-4, batch_size=self.shape.examples, warmup_ratio=0.0, optimizer=self.shape.optimizer)


def run(setup: Setup, training: Training, module: SafetySft, loader: StepLoader, callbacks: Sequence[Callback]) -> None:
    """Trains on one device, a process group of one rank."""
    if training.strategy == "fsdp" and not dist.is_initialized():
        backend, device = ("gloo", None) if setup.dry else ("cpu:gloo,cuda:nccl", setup.device)
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, device_id=device)
    if not setup.dry:
        torch.cuda.reset_peak_memory_stats()
    # The project's strategy: Lightning's own would move the model to the CPU in the end.
    strategy, environment = lightning_strategy(training.trainer(setup), Ranks())
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
