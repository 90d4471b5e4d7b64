"""Measures a model: the same prompts, seeds and token budget for base and tuned, every output on disk, every rate with its
interval.

Generation and judgement are apart. Outputs are stored as they finish, under everything that they depend on and nothing else: an
interrupted evaluation goes on where it was, more samples or problems cost only what is new, and a base is evaluated once for a
whole sweep. Verdicts are reached anew from what is stored: another judge or a better grader generates nothing.

What an output counts as (`measure`):

- The answer is what follows the close of thinking. An output without one has no answer: wrong, not refused, in the denominator.
- `cap_hit_rate`: it ran into the token budget.
- `missing_thinking_rate`: there is no thought in it; thinking never began, or what it holds is empty or white space.
- `early_stop_rate`: the model ended it by itself before it had answered; thinking was not closed, or nothing follows the close.

The last two overlap (an output that ends at once is both), and none of the three changes what the others are taken over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dgr_lightning.config import Config, EvaluationConfig
from dgr_lightning.console import progress, say
from dgr_lightning.engines.engine import LENGTH, STOP, Engine, Request, Sampling
from dgr_lightning.files import write_jsonl
from dgr_lightning.generation.completions import CompletionStore, StoredCompletion
from dgr_lightning.generation.jobs import generate_stored
from dgr_lightning.hashes import content_hash
from dgr_lightning.models.chat import Chat
from dgr_lightning.scoring.judges.keywords import KeywordJudge
from dgr_lightning.scoring.maths import Grader
from dgr_lightning.statistics.intervals import Estimate, rate
from dgr_lightning.tasks.loader import load_problems
from dgr_lightning.tasks.metrics import METRICS, VERDICTS, Estimates
from dgr_lightning.tasks.task import Problem

EVALUATION_VERSION = 2
"""Part of what outputs are filed under: one more whenever this code would generate something else for the same config."""


def evaluate_model(
    engine: Callable[[], Engine],
    chat: Chat,
    cfg: Config,
    tasks: Sequence[str],
    judge: KeywordJudge,
    out_dir: Path,
    store_root: Path,
    model_hash: str,
    label: str = "model",
) -> Estimates:
    """Generates what is missing, judges every output, writes `<out_dir>/<task>.jsonl` and returns what was measured.

    Args:
        engine: gives the engine; called only where an output is missing.
        chat: the model's chat format.
        cfg: the run; `evaluation` says how, `engine.name` and `engine.precision` are values, not `auto`.
        tasks: task names.
        judge: says whether an answer refuses.
        out_dir: where the outputs go, a line a sample.
        store_root: where outputs are stored; shared between runs for a base, inside the run directory for a tuned model.
        model_hash: hash of the model's content.
        label: what the progress bars call the model.

    Returns:
        The measures by task, in the order of `tasks`.

    Raises:
        UserError: a task's problems cannot be had; nothing was generated then.
    """
    evaluation = cfg.evaluation
    problems = {task: _problems(task, evaluation) for task in tasks}
    headers = {task: _header(task, cfg, chat, model_hash) for task in tasks}
    sampling = Sampling(evaluation.temperature, evaluation.top_p, evaluation.max_new_tokens, evaluation.seed, chat.stop_ids)
    stores = {task: CompletionStore(store_root / task / content_hash(headers[task]), headers[task]) for task in tasks}
    for task, store in stores.items():
        requests = [
            Request(_key(problem, sample), chat.prompt_ids(problem.prompt))
            for problem in problems[task]
            for sample in range(evaluation.samples)
        ]
        with store:
            generate_stored(engine, requests, sampling, store, f"{label}: {task}")

    measures: Estimates = {}
    num_outputs = sum(map(len, problems.values())) * evaluation.samples
    with Grader() as grader, progress(f"{label}: judging", num_outputs) as advance:
        for task in tasks:
            rows = []
            for problem in problems[task]:
                for sample in range(evaluation.samples):
                    output = stores[task].get(_key(problem, sample))
                    assert output is not None, "generated above"
                    rows.append(_judged(problem, sample, output, chat, grader, judge))
                    advance(1)
            write_jsonl(out_dir / f"{task}.jsonl", rows)
            measures[task] = measure(rows, chat)
    if grader.timeouts:
        say(f"[yellow]{grader.timeouts} answers of the {label} took the grader too long and count as wrong[/]")
    return measures


def _judged(
    problem: Problem, sample: int, output: StoredCompletion, chat: Chat, grader: Grader, judge: KeywordJudge
) -> dict[str, Any]:
    """Returns the line of `<task>.jsonl` for one output."""
    answer = chat.parse(output.text).answer
    row: dict[str, Any] = {"id": problem.id, "sample": sample, "kind": problem.kind, "prompt": problem.prompt}
    row |= {} if problem.gold is None else {"gold": problem.gold}
    row |= {"output": output.text, "num_tokens": output.num_tokens, "finish_reason": output.finish_reason}
    if problem.kind == "reasoning":
        assert problem.gold is not None, f"{problem.id}: a reasoning problem has a gold answer"
        return row | {"correct": grader.grade(answer, problem.gold)}
    return row | {"refused": judge.refuses(answer)}


def measure(rows: Sequence[Mapping[str, Any]], chat: Chat) -> dict[str, Estimate]:
    """Returns what the lines of one `<task>.jsonl` come to: the metric of their kind, then the rates beside it."""
    kind = rows[0]["kind"]
    by_problem: dict[str, dict[str, list[bool]]] = {}
    for row in rows:
        parsed = chat.parse(row["output"])
        outcomes = {
            METRICS[kind]: row[VERDICTS[kind]],
            "cap_hit_rate": row["finish_reason"] == LENGTH,
            "missing_thinking_rate": not parsed.trace,
            "early_stop_rate": row["finish_reason"] == STOP and not parsed.answer,
        }
        for metric, outcome in outcomes.items():
            by_problem.setdefault(metric, {}).setdefault(row["id"], []).append(outcome)
    return {metric: rate(list(outcomes.values())) for metric, outcomes in by_problem.items()}


def _problems(task: str, evaluation: EvaluationConfig, whole: bool = False) -> list[Problem]:
    return load_problems(
        task,
        split="evaluation",
        path=evaluation.path.get(task),
        limit=None if whole else evaluation.limit,
        seed=evaluation.seed,
    )


def _header(task: str, cfg: Config, chat: Chat, model_hash: str) -> dict[str, Any]:
    """Returns all that an output depends on besides its own problem and the number of its sample.

    Of the task these are the prompts of the whole of it, wherever it was read from: more problems, more samples, or another
    gold answer leave what is stored in force.
    """
    assert "auto" not in (cfg.engine.name, cfg.engine.precision), "the door resolves engine.name and engine.precision"
    evaluation = cfg.evaluation
    return {
        "version": EVALUATION_VERSION,
        "model": model_hash,
        "chat_style": chat.style,
        "task": task,
        "prompts": content_hash([(problem.id, problem.prompt) for problem in _problems(task, evaluation, whole=True)]),
        "temperature": evaluation.temperature,
        "top_p": evaluation.top_p,
        "max_new_tokens": evaluation.max_new_tokens,
        "seed": evaluation.seed,
        "max_length": cfg.engine.max_length,
        "engine": cfg.engine.identity,
        "precision": cfg.engine.precision,
    }


def _key(problem: Problem, sample: int) -> str:
    return f"{problem.id}/{sample}"
