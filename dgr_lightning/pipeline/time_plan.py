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
from dgr_lightning.engines.decoding_time import (
    PRODUCT_SHARE,
    READ_SHARE,
    DecodedModel,
    Generation,
    generation_seconds,
    prefill_seconds,
)
from dgr_lightning.engines.vllm.sizing import ModelSize
from dgr_lightning.errors import UserError
from dgr_lightning.evaluation.subjects import BASE, TUNED
from dgr_lightning.models.attention_shape import AttentionShape
from dgr_lightning.models.weights import outline
from dgr_lightning.pipeline.planned_machine import Machine
from dgr_lightning.pipeline.set_lengths import SetLengths
from dgr_lightning.pipeline.training_plan import TrainingPlan
from dgr_lightning.refinement.expected_generation import ASSUMPTION, expected_generation
from dgr_lightning.report.stages import StageEstimate, StagesPlan
from dgr_lightning.tasks.expected_tokens import ASSUMED_PROBLEMS, PROMPT_TOKENS, TYPICAL_TOKENS, expected_tokens
from dgr_lightning.tasks.loader import load_problems
from dgr_lightning.tasks.registry import TASKS
from dgr_lightning.tasks.settings import settings_of
from dgr_lightning.tasks.task import EVALUATION
from dgr_lightning.training.disk import TrainingDisk, training_disk
from dgr_lightning.training.tuning import count_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ENGINE_START_SECONDS = 60.0
"""Of vLLM, from its import to the first token, graphs captured; a run starts one over the base and one over the tuned model."""

_TEXT_BYTES = 5  # of a token as text in JSON
_ENGINE_BYTES = 2  # of a weight, a key or a value: bf16


class TimePlan:
    """The expected stages of one run."""

    def __init__(
        self,
        cfg: Config,
        model: PreTrainedModel,
        lengths: SetLengths,
        recompute_every: int = 0,
        disk: TrainingDisk | None = None,
    ) -> None:
        """Takes what the formulas are given.

        Args:
            cfg: a `planned_config`; an `auto` may be left outside of `trainer`.
            model: on the meta device, without values.
            lengths: of the source set.
            recompute_every: as the memory plan resolves `trainer.recompute_every`.
            disk: what the training writes; None: not known.
        """
        machine = Machine.of(cfg)
        size = model_size(model)
        self._cfg, self._machine, self._engines = cfg, machine, machine.engines(cfg, size)
        self._examples = lengths.examples
        token_bytes = size.bytes_each * AttentionShape.of(model.config.get_text_config()).cached_numbers
        self._decoded = DecodedModel(size.num_parameters, size.num_parameters * size.bytes_each, token_bytes)
        self._training = TrainingPlan(cfg, lengths.examples, machine, recompute_every, disk)
        self._model = model

    def stages(self, num_problems: Mapping[str, int] | None) -> StagesPlan:
        """Returns the stages in their order, and what they assume.

        Args:
            num_problems: task → problems of the evaluation; None: the run trains and evaluates nothing.
        """
        stages: list[StageEstimate] = []
        if self._engines is not None:
            starts = 1 if num_problems is None else 2
            stages.append(StageEstimate(f"start of engines ({starts} ×)", None, starts * ENGINE_START_SECONDS))
        stages += [self._refinement(), self._shift()]
        warning = None
        if num_problems is not None:
            training, probes = self._training.steps(self._model), self._training.probes(self._decoded)
            stages += [self._evaluation(BASE, num_problems), training, *filter(None, [probes])]
            stages.append(self._evaluation(TUNED, num_problems))
            warning = self._training.probe_warning(training, probes)
        return StagesPlan(str(self._machine), stages, list(self._assumptions(num_problems)), [warning] if warning else [])

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
            f"out of reach has the published number of problems, or {ASSUMED_PROBLEMS}; nothing is in the cache"
        )
        yield from self._training.assumptions()


def evaluation_generation(evaluation: EvaluationConfig, num_problems: Mapping[str, int]) -> Generation:
    """Returns the requests of an evaluation, all tasks in one stream.

    Args:
        evaluation: `samples` and `max_new_tokens` are read, of kinds and tasks where they have their own.
        num_problems: task → problems.
    """
    total = Generation()
    for name, problems in num_problems.items():
        settings = settings_of(evaluation, name)
        budget, outputs = settings.max_new_tokens, problems * settings.samples
        total += Generation(outputs, outputs * PROMPT_TOKENS, outputs * expected_tokens(TASKS[name], budget), budget)
    return total


def time_plan(
    cfg: Config, folder: Path, lengths: SetLengths, recompute_every: int, unread: Sequence[str] | None
) -> StagesPlan | None:
    """Returns the expected stages of a run; None where transformers cannot make a model of its config.

    Args:
        cfg: a `planned_config`; an `auto` may be left outside of `trainer`.
        folder: of the model, of which config.json is read.
        lengths: of the source set.
        recompute_every: as the memory plan resolves `trainer.recompute_every`.
        unread: tasks out of reach, as `overlap.measured_prompts` names them; None: the run trains and evaluates nothing.
    """
    model = outline(folder, cfg.model.trust_remote_code)
    if model is None or not lengths.examples:
        return None
    if unread is None:
        return TimePlan(cfg, model, lengths).stages(None)
    counts = count_weights(folder, cfg.tuning, cfg.model.trust_remote_code)
    disk = None if counts is None else training_disk(cfg, *counts, _ENGINE_BYTES)
    return TimePlan(cfg, model, lengths, recompute_every, disk).stages(_num_problems(cfg.evaluation, unread))


def _num_problems(evaluation: EvaluationConfig, unread: Sequence[str]) -> dict[str, int]:
    found = {}
    for name in evaluation.tasks:
        task = TASKS[name].name
        limit = settings_of(evaluation, name).limit
        published = TASKS[name].size or limit or ASSUMED_PROBLEMS
        known = min(published, limit or published)
        if f"{task} ({EVALUATION})" not in unread:
            try:
                path = evaluation.path.get(task)
                known = len(load_problems(name, split=EVALUATION, path=path, limit=limit))
            except UserError:
                pass  # its copy has gone since it was compared
        found[name] = known
    return found


def model_size(model: PreTrainedModel) -> ModelSize:
    """Returns the size of a model as an engine holds it, in bf16, by its config alone."""
    shape = AttentionShape.of(model.config.get_text_config())
    return ModelSize.of_shape(sum(weight.numel() for weight in model.parameters()), shape, _ENGINE_BYTES)
