"""Evaluates a model: the same prompts, seeds and token budget for base and tuned, every output on disk, every rate with its
interval.

Generation (`outputs.py`) and scoring are apart. Verdicts are computed from what is stored: another judge or a better grader
generates nothing. What an output counts as is written beside it (`records.py`) and averaged by `estimates.py`.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from dgr_lightning.config import Config
from dgr_lightning.console import progress, say
from dgr_lightning.engines.engine import STOP
from dgr_lightning.engines.model_handle import ModelHandle
from dgr_lightning.evaluation.asking import attack_name
from dgr_lightning.evaluation.estimates import estimate
from dgr_lightning.evaluation.outputs import generate_outputs
from dgr_lightning.evaluation.records import record
from dgr_lightning.files import write_jsonl
from dgr_lightning.scoring.grader import TIMEOUT
from dgr_lightning.scoring.guard_choice import guards_of
from dgr_lightning.scoring.panel import Panel
from dgr_lightning.scoring.scorer import Scorer
from dgr_lightning.tasks.metrics import Estimates
from dgr_lightning.tasks.registry import TASKS


def evaluate_model(
    model: ModelHandle, cfg: Config, judges: Panel, out_dir: Path, store_root: Path, label: str = "model"
) -> Estimates:
    """Generates what is missing, scores every output, writes `<out_dir>/<task>.jsonl` and returns the estimates.

    Args:
        model: its engine is started only where an output is missing, and released where the judge is a guard, which runs on
            the same devices.
        cfg: the run; `evaluation` says which tasks and how, `engine.name` and `engine.precision` are values, not `auto`.
        judges: of tasks without a grader.
        out_dir: where the outputs go, a line a sample.
        store_root: where outputs are stored; shared between runs for a base, inside the run directory for a tuned model.
        label: names the model in progress bars.

    Returns:
        The estimates by task, in the order of `evaluation.tasks`.

    Raises:
        UserError: a task's problems cannot be read; nothing was generated then.
    """
    outputs = generate_outputs(model, cfg, store_root, label)
    parsed = {
        name: [model.chat.parse(one.text, finished=one.completion.finish_reason == STOP) for one in own]
        for name, own in outputs.items()
    }
    if guards := guards_of(cfg):
        model.release()  # the guard takes its place on the devices
    if len(guards) > 1:
        judged = [name for name in outputs if TASKS[name].grader is None]
        prompts = [output.problem.prompt for name in judged for output in outputs[name]]
        judges.judge_in_turn(prompts, [one for name in judged for one in parsed[name]])
    estimates: Estimates = {}
    timeouts = 0
    with ExitStack() as stack:
        scorer = stack.enter_context(Scorer(judges))
        num_steps = sum(len(own) * scorer.num_steps(TASKS[name]) for name, own in outputs.items())
        advance = stack.enter_context(progress(f"{label}: scoring", num_steps))
        for name, own in outputs.items():
            task = TASKS[name]
            scores = scorer.scores(task, [output.problem for output in own], parsed[name], advance)
            timeouts += sum(score.grade is not None and score.grade.outcome == TIMEOUT for score in scores)
            version = scorer.grader_version(task)
            attack = attack_name(cfg.evaluation, task.kind)
            rows = [record(output, task, score, version, attack) for output, score in zip(own, scores, strict=True)]
            write_jsonl(out_dir / f"{task.name}.jsonl", rows)
            estimates[task.name] = estimate(rows, model.chat)
    if timeouts:
        say(f"[yellow]{timeouts} answers of the {label} took the grader too long and count as wrong[/]")
    return estimates
