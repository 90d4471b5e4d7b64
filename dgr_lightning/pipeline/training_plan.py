"""What a training is expected to take: its steps, its probes and its disk, for `time_plan`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from dgr_lightning.config import Config
from dgr_lightning.config.setting import AUTO
from dgr_lightning.engines.decoding_time import DecodedModel, EngineMachine, step_seconds
from dgr_lightning.pipeline.disk_room import peak as most_held
from dgr_lightning.pipeline.planned_machine import Machine
from dgr_lightning.pipeline.set_lengths import ExampleLength
from dgr_lightning.report.stages import StageEstimate
from dgr_lightning.tasks.expected_tokens import PROMPT_TOKENS, expected_tokens
from dgr_lightning.tasks.registry import TASKS
from dgr_lightning.training.disk import TrainingDisk
from dgr_lightning.training.probe_schedule import (
    LARGE_SHARE,
    advice,
    estimated_seconds,
    num_probes,
    probe_interval,
    probe_share,
)
from dgr_lightning.training.training_time import CPU_MFU, assumed_mfu, training_seconds
from dgr_lightning.writing import readable_size

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TrainingPlan:
    """The expected training of one run."""

    def __init__(
        self,
        cfg: Config,
        examples: Sequence[ExampleLength],
        machine: Machine,
        recompute_every: int,
        disk: TrainingDisk | None,
    ) -> None:
        """Takes what the formulas are given.

        Args:
            cfg: a `planned_config`; an `auto` may be left outside of `trainer`.
            examples: of the source set.
            machine: that it is planned on.
            recompute_every: as the memory plan resolves `trainer.recompute_every`.
            disk: what the training writes; None: not known.
        """
        self._cfg, self._examples, self._machine = cfg, examples, machine
        self._recompute_every, self._disk = recompute_every, disk

    def steps(self, model: PreTrainedModel) -> StageEstimate:
        """Returns the optimizer steps.

        Args:
            model: on the meta device, without values.
        """
        from dgr_lightning.training.flops import ModelFlops

        for weight in model.parameters():
            weight.requires_grad_(self._cfg.tuning.method == "full")
        tokens = self._tokens_per_step * self._num_steps
        shares = [self._lengths(one) for one in self._examples]
        epochs = tokens / max(1, sum(whole for whole, _ in shares))
        flops = epochs * ModelFlops.of(model).step(
            sum(whole for whole, _ in shares),
            sum(targets for _, targets in shares),
            sum(whole * (whole + 1) // 2 for whole, _ in shares),
        )
        peak, mfu = self._speed
        seconds = None
        if peak is not None:
            seconds = training_seconds(flops, peak, self._machine.devices, mfu, self._recompute_every)
        return StageEstimate(f"training, {self._num_steps:,} steps", tokens, seconds, self._disk_left)

    def probes(self, decoded: DecodedModel) -> StageEstimate | None:
        """Returns the probes of the training; None where there are none.

        Args:
            decoded: the model as an engine holds it.
        """
        probes = self._cfg.probes
        every = probe_interval(self._num_steps) if probes.every == AUTO else probes.every
        times, problems = num_probes(self._num_steps, every), probes.size * len(probes.tasks)
        if not times or not problems:
            return None
        typical = sum(expected_tokens(TASKS[name], probes.max_new_tokens) for name in probes.tasks) / len(probes.tasks)
        seconds = None
        if self._machine.planned is not None:
            device, batch = self._machine.planned.device, self._cfg.engine.num_sequences
            one = EngineMachine(1, 1, device.bf16_flops, device.memory_bandwidth, 0.0, batch)
            mine = problems / self._machine.devices
            step = step_seconds(decoded, one, mine, PROMPT_TOKENS + probes.max_new_tokens / 2)
            seconds = estimated_seconds(times, problems, probes.max_new_tokens, step, batch, self._machine.devices)
        return StageEstimate(f"probes, {times} × {problems} problems", times * problems * typical, seconds)

    def probe_warning(self, training: StageEstimate, probes: StageEstimate | None) -> str | None:
        """Returns the sentence that says that probes take more than they should beside the steps; else None."""
        if probes is None or training.seconds is None or probes.seconds is None:
            return None
        if (share := probe_share(probes.seconds, training.seconds)) <= LARGE_SHARE:
            return None
        keys = self._cfg.probes
        return f"probes take {share:.0%} of the training's time: {advice(keys.size, keys.max_new_tokens)}"

    def assumptions(self) -> Iterator[str]:
        """Yields what the figures rest on."""
        if self._disk is not None:
            yield (
                f"disk: {readable_size(sum(most_held(self._cfg, self._disk).values()))} while it trains, and "
                f"{readable_size(self._disk.checkpoint)} for each checkpoint before the last one"
            )
        peak, mfu = self._speed
        if peak is not None:
            of = "the peak that this CPU showed just now" if self._machine.planned is None else "the data sheet's peak"
            yield f"training: examples as long as the source's, {mfu:.0%} of {of} (MFU, assumed by the tokens of a step)"

    def _lengths(self, example: ExampleLength) -> tuple[int, int]:
        """Returns the tokens of an example in training, and those of its target."""
        whole = min(example.whole, self._cfg.sft.max_length)
        return whole, max(0, whole - example.prompt)

    @property
    def _disk_left(self) -> float | None:
        """Returns the bytes of model and checkpoints that a training leaves."""
        trainer, disk = self._cfg.trainer, self._disk
        if disk is None:
            return None
        every = trainer.checkpoint_every
        before = 0 if every in (0, AUTO) else (self._num_steps - 1) // int(every)
        return disk.left(before, trainer.keep_checkpoints, keep_optimizer=trainer.keep_optimizer)

    @property
    def _num_steps(self) -> int:
        from dgr_lightning.training.packing import num_steps

        sft = self._cfg.sft
        return num_steps(len(self._examples), sft.batch_size, sft.epochs, sft.max_steps)

    @property
    def _tokens_per_step(self) -> float:
        whole = sum(self._lengths(example)[0] for example in self._examples)
        return self._cfg.sft.batch_size * whole / max(1, len(self._examples))

    @cached_property
    def _speed(self) -> tuple[float | None, float]:
        """Returns the peak of a device in FLOP/s, None where it is not known, and the share of it that is assumed."""
        from dgr_lightning.distributed.devices import resolve_precision

        trainer = self._cfg.trainer
        if self._machine.planned is not None:
            peak = self._machine.planned.device.bf16_flops if trainer.precision != "fp32" else None
            return peak, assumed_mfu(self._tokens_per_step / self._machine.devices)
        if trainer.accelerator == "cuda":
            return None, 1.0
        import torch

        from dgr_lightning.training.flops import peak_flops

        return peak_flops(torch.device("cpu"), resolve_precision(trainer.precision, "cpu")), CPU_MFU
