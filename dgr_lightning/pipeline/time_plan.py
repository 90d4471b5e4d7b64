"""What the stages of a run are expected to take: tokens, time and disk, on a machine that need not be here.

The formulas are pure functions in the packages that do the work (`engines/decoding_time.py`, `training/training_time.py`,
`refinement/expected_generation.py`, `tasks/expected_tokens.py`); here they are given the numbers of one run. All of it is an
estimate, and what it assumes is shown with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dgr_lightning.config import Config, EvaluationConfig
from dgr_lightning.config.setting import AUTO
from dgr_lightning.engines.decoding_time import (
    PRODUCT_SHARE,
    READ_SHARE,
    STEP_SECONDS,
    DecodedModel,
    EngineMachine,
    Generation,
    generation_seconds,
    prefill_seconds,
    step_seconds,
)
from dgr_lightning.engines.vllm.sizing import ModelSize
from dgr_lightning.errors import UserError
from dgr_lightning.evaluation.subjects import BASE, TUNED
from dgr_lightning.models.weights import outline
from dgr_lightning.pipeline.planned_machine import Machine, number
from dgr_lightning.pipeline.set_lengths import ExampleLength, SetLengths
from dgr_lightning.refinement.expected_generation import ASSUMPTION, expected_generation
from dgr_lightning.report.stages import StageEstimate, StagesPlan
from dgr_lightning.tasks.expected_tokens import ASSUMED_PROBLEMS, PROMPT_TOKENS, TYPICAL_TOKENS, expected_tokens
from dgr_lightning.tasks.loader import load_problems
from dgr_lightning.tasks.registry import TASKS
from dgr_lightning.tasks.task import EVALUATION
from dgr_lightning.training.probe_schedule import (
    LARGE_SHARE,
    estimated_seconds,
    num_probes,
    probe_interval,
    probe_share,
)
from dgr_lightning.training.training_time import CPU_MFU, assumed_mfu, training_seconds

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ENGINE_START_SECONDS = 60.0
"""Of vLLM, from its import to the first token, graphs captured; a run starts one over the base and one over the tuned model."""

_TEXT_BYTES = 5  # of a token as text in JSON


class TimePlan:
    """The expected stages of one run."""

    def __init__(self, cfg: Config, model: PreTrainedModel, lengths: SetLengths, machine: Machine) -> None:
        """Takes what the formulas are given.

        Args:
            cfg: of the run; an `auto` may be left.
            model: on the meta device, without values.
            lengths: of the source set.
            machine: that it is planned on.
        """
        self._cfg, self._machine = cfg, machine
        self._examples = lengths.examples
        self._model = model
        self._num_weights = sum(weight.numel() for weight in model.parameters())
        size = ModelSize.of_config(model.config, self._num_weights, cfg.engine.precision)
        self._engines = machine.engines(cfg, size)
        self._decoded = DecodedModel(self._num_weights, 2 * self._num_weights, _token_bytes(model))

    def stages(self, num_problems: Mapping[str, int] | None) -> StagesPlan:
        """Returns the stages in their order, and what they assume.

        Args:
            num_problems: task → problems of the evaluation; None: the run trains and evaluates nothing.
        """
        measures = num_problems is not None
        stages = [self._refinement(), self._shift()]
        if num_problems is not None:
            stages += [self._evaluation(BASE, num_problems), *self._training(), self._evaluation(TUNED, num_problems)]
        if self._engines is not None:
            starts = 2 if measures else 1
            stages.insert(0, StageEstimate(f"start of engines ({starts} ×)", None, starts * ENGINE_START_SECONDS))
        warnings = [] if (warning := self._probe_warning(stages)) is None else [warning]
        return StagesPlan(str(self._machine), stages, list(self._assumptions(num_problems)), warnings)

    def _probe_warning(self, stages: Sequence[StageEstimate]) -> str | None:
        """Returns the sentence that says that probes take more than they should beside the training; else None."""
        seconds = {kind: stage.seconds for stage in stages for kind in ("training", "probes") if stage.name.startswith(kind)}
        steps, probes = seconds.get("training"), seconds.get("probes")
        if steps is None or probes is None or (share := probe_share(probes, steps)) <= LARGE_SHARE:
            return None
        keys = self._cfg.probes
        return (
            f"probes take {share:.0%} of the training's time: a smaller probes.size (now {keys.size}) or probes.max_new_tokens "
            f"(now {keys.max_new_tokens}) makes them shorter, a larger probes.every rarer"
        )

    def _refinement(self) -> StageEstimate:
        wanted = expected_generation(self._cfg.refine, self._examples)
        return self._generated(f"refinement, {wanted.num_sequences:,} outputs", wanted)

    def _generated(self, name: str, wanted: Generation) -> StageEstimate:
        seconds = None if self._engines is None else generation_seconds(self._decoded, self._engines, wanted)
        if not wanted.num_sequences:
            seconds = 0.0
        return StageEstimate(name, wanted.output_tokens, seconds, _TEXT_BYTES * wanted.output_tokens)

    def _shift(self) -> StageEstimate:
        measured = self._examples[: self._cfg.shift.limit]
        tokens = 2 * sum(example.whole for example in measured)
        seconds = None if self._engines is None else prefill_seconds(self._decoded, self._engines, tokens)
        return StageEstimate("shift", tokens, seconds)

    def _evaluation(self, subject: str, num_problems: Mapping[str, int]) -> StageEstimate:
        wanted = evaluation_generation(self._cfg.evaluation, num_problems)
        return self._generated(f"evaluation of the {subject} model, {wanted.num_sequences:,} outputs", wanted)

    def _training(self) -> Iterator[StageEstimate]:
        from dgr_lightning.training.flops import ModelFlops

        for weight in self._model.parameters():
            weight.requires_grad_(self._cfg.tuning.method == "full")
        tokens = self._tokens_per_step * self._num_steps
        shares = [self._lengths(one) for one in self._examples]
        epochs = tokens / max(1, sum(whole for whole, _ in shares))
        flops = epochs * ModelFlops.of(self._model).step(
            sum(whole for whole, _ in shares),
            sum(targets for _, targets in shares),
            sum(whole * (whole + 1) // 2 for whole, _ in shares),
        )
        peak, mfu = self._speed
        every = number(self._cfg.trainer.recompute_every, 0)
        seconds = None if peak is None else training_seconds(flops, peak, self._machine.devices, mfu, every)
        yield StageEstimate(f"training, {self._num_steps:,} steps", tokens, seconds)
        if (probes := self._probes()) is not None:
            yield probes

    def _probes(self) -> StageEstimate | None:
        probes = self._cfg.probes
        every = probe_interval(self._num_steps) if probes.every == AUTO else probes.every
        times, problems = num_probes(self._num_steps, every), probes.size * len(probes.tasks)
        if not times or not problems:
            return None
        typical = sum(expected_tokens(TASKS[name], probes.max_new_tokens) for name in probes.tasks) / len(probes.tasks)
        seconds = None
        if self._engines is not None and self._machine.planned is not None:
            # Weights in training are fp32 and read as such, written in bf16 and read again; shards are gathered in bf16.
            weight_bytes = (2 if self._machine.devices > 1 else 8) * self._num_weights
            device = self._machine.planned.device
            one = EngineMachine(
                1,
                1,
                device.bf16_flops,
                device.memory_bandwidth,
                0.0,
                self._cfg.engine.num_sequences,
                STEP_SECONDS["transformers"],
            )
            model = DecodedModel(self._num_weights, weight_bytes, self._decoded.token_bytes)
            mine = problems / self._machine.devices
            step = step_seconds(model, one, mine, PROMPT_TOKENS + probes.max_new_tokens / 2)
            batch = self._cfg.engine.num_sequences
            seconds = estimated_seconds(times, problems, probes.max_new_tokens, step, batch, self._machine.devices)
        return StageEstimate(f"probes, {times} × {problems} problems", times * problems * typical, seconds)

    def _lengths(self, example: ExampleLength) -> tuple[int, int]:
        """Returns the tokens of an example in training, and those of its target."""
        whole = min(example.whole, self._cfg.sft.max_length)
        return whole, max(0, whole - example.prompt)

    @property
    def _num_steps(self) -> int:
        from dgr_lightning.training.packing import num_steps

        sft = self._cfg.sft
        return num_steps(len(self._examples), sft.batch_size, sft.epochs, sft.max_steps)

    @property
    def _tokens_per_step(self) -> float:
        whole = sum(self._lengths(example)[0] for example in self._examples)
        return self._cfg.sft.batch_size * whole / max(1, len(self._examples))

    @property
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

    def _assumptions(self, num_problems: Mapping[str, int] | None) -> Iterator[str]:
        planned = self._machine.planned
        if planned is not None:
            device = planned.device
            yield (
                f"{device.name}: {device.bf16_flops / 1e12:,.0f} TFLOP/s, {device.memory_bandwidth / 1e12:.2f} TB/s, "
                f"{device.memory_gib} GB ({planned.why})"
            )
        if self._engines is not None:
            engines = self._engines
            yield (
                f"generation: {engines.num_engines} engine{'s' if engines.num_engines > 1 else ''}, decoding at "
                f"{READ_SHARE:.0%} of the bandwidth, prompts at {PRODUCT_SHARE:.0%} of the peak, "
                f"{ENGINE_START_SECONDS:.0f} s for a start"
            )
        else:
            yield "generation is not estimated on a CPU, nor behind a server; trainer.device_name=H100 names a GPU to plan for"
        yield f"refinement: {ASSUMPTION}"
        if num_problems is None:
            return
        typical = ", ".join(f"{tokens:,} ({kind})" for kind, tokens in TYPICAL_TOKENS.items())
        yield (
            f"evaluation: outputs of {typical} tokens by the kind of task, the longest of evaluation.max_new_tokens; a task "
            f"out of reach has evaluation.limit problems, or {ASSUMED_PROBLEMS}; nothing is in the cache"
        )
        peak, mfu = self._speed
        if peak is not None:
            of = "the data sheet's peak" if planned is not None else "the peak that this CPU showed just now"
            yield f"training: examples as long as the source's, {mfu:.0%} of {of} (MFU, assumed by the tokens of a step)"


def evaluation_generation(evaluation: EvaluationConfig, num_problems: Mapping[str, int]) -> Generation:
    """Returns the requests of an evaluation, all tasks in one stream.

    Args:
        evaluation: `samples` and `max_new_tokens` are read.
        num_problems: task → problems.
    """
    budget, total = evaluation.max_new_tokens, Generation()
    for name, problems in num_problems.items():
        outputs = problems * evaluation.samples
        total += Generation(outputs, outputs * PROMPT_TOKENS, outputs * expected_tokens(TASKS[name], budget), budget)
    return total


def time_plan(cfg: Config, folder: Path, lengths: SetLengths, unread: Sequence[str], *, measures: bool) -> StagesPlan | None:
    """Returns the expected stages of a run; None where transformers cannot make a model of its config.

    Args:
        cfg: of the run; an `auto` may be left.
        folder: of the model, of which config.json is read.
        lengths: of the source set.
        unread: tasks out of reach, as `overlap.measured_prompts` names them.
        measures: whether the run trains and evaluates.

    Raises:
        UserError: `trainer.device_name` is unknown.
    """
    model = outline(folder, cfg.model.trust_remote_code)
    if model is None or not lengths.examples:
        return None
    problems = _num_problems(cfg.evaluation, unread) if measures else None
    return TimePlan(cfg, model, lengths, Machine.of(cfg)).stages(problems)


def _num_problems(evaluation: EvaluationConfig, unread: Sequence[str]) -> dict[str, int]:
    found = {}
    for name in evaluation.tasks:
        task = TASKS[name].name
        known = evaluation.limit or ASSUMED_PROBLEMS
        if f"{task} ({EVALUATION})" not in unread:
            try:
                path = evaluation.path.get(task)
                known = len(load_problems(name, split=EVALUATION, path=path, limit=evaluation.limit))
            except UserError:
                pass  # its copy has gone since it was compared
        found[name] = known
    return found


def _token_bytes(model: PreTrainedModel) -> float:
    config = model.config.get_text_config()
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return 2 * 2 * config.num_hidden_layers * groups * size
