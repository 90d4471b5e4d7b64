"""Evaluates a model: the same prompts, seeds and token budget for base and tuned, every output on disk, every rate with its
interval.

Generation and scoring are apart. All tasks are generated in one stream, those with the longest outputs first. Outputs are
stored as they finish, under everything that they depend on and nothing else: an interrupted evaluation resumes, more samples or
problems cost only what is new, and a base is evaluated once for a whole sweep. Verdicts are computed from what is stored:
another judge or a better grader generates nothing.

How an output counts (`estimate`):

- The answer is the text after the close of thinking. An output without one has no answer: wrong, not refused, and in the
  denominator. Two exceptions, in which all of the output is the answer: the style is `none`; or the template does not open a
  thought, the model opened none either, and it ended the output itself.
- `cap_hit_rate`: it ran into the token budget.
- `missing_thinking_rate`: it holds no thought; thinking never began, or is empty or white space. Undefined for a style without
  thinking.
- `early_stop_rate`: the model ended it before it had answered; thinking was not closed, or there is nothing after it.

The last two overlap (an output that ends at once is both), and none of the three changes the denominator of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from dgr_lightning.config import Config, EvaluationConfig
from dgr_lightning.console import progress, say
from dgr_lightning.engines.engine import LENGTH, STOP, Request
from dgr_lightning.engines.model_handle import ModelHandle
from dgr_lightning.files import write_jsonl
from dgr_lightning.generation.completions import CompletionStore, StoredCompletion
from dgr_lightning.generation.jobs import generate_stored
from dgr_lightning.generation.store_headers import sampling_of, sampling_settings, store_header
from dgr_lightning.hashes import content_hash
from dgr_lightning.models.chat import Chat
from dgr_lightning.scoring.judge import Judge
from dgr_lightning.scoring.scorer import Scorer
from dgr_lightning.statistics.intervals import Estimate, rate
from dgr_lightning.tasks.loader import load_problems
from dgr_lightning.tasks.metrics import KINDS, Estimates
from dgr_lightning.tasks.registry import TASKS
from dgr_lightning.tasks.task import EVALUATION, LENGTHS, Problem, Task

EVALUATION_VERSION = 2
"""Hashed with stored outputs: raise it whenever this code would generate something else for the same config."""


class Output(NamedTuple):
    """One sample of a problem: the completion that is stored for it."""

    problem: Problem
    sample: int
    completion: StoredCompletion


def evaluate_model(
    model: ModelHandle, cfg: Config, judge: Judge, out_dir: Path, store_root: Path, label: str = "model"
) -> Estimates:
    """Generates what is missing, scores every output, writes `<out_dir>/<task>.jsonl` and returns the estimates.

    Args:
        model: its engine is started only where an output is missing.
        cfg: the run; `evaluation` says which tasks and how, `engine.name` and `engine.precision` are values, not `auto`.
        judge: decides whether an answer refuses.
        out_dir: where the outputs go, a line a sample.
        store_root: where outputs are stored; shared between runs for a base, inside the run directory for a tuned model.
        label: names the model in progress bars.

    Returns:
        The estimates by task, in the order of `evaluation.tasks`.

    Raises:
        UserError: a task's problems cannot be read; nothing was generated then.
    """
    names, samples = cfg.evaluation.tasks, cfg.evaluation.samples
    problems = {name: _problems(name, cfg.evaluation) for name in names}
    stores = _generate(model, cfg, problems, store_root, label)
    estimates: Estimates = {}
    num_outputs = sum(map(len, problems.values())) * samples
    with Scorer(judge) as scorer, progress(f"{label}: scoring", num_outputs) as advance:
        for name in names:
            task, store = TASKS[name], stores[name]
            outputs = [
                Output(problem, sample, _stored(store, problem, sample))
                for problem in problems[name]
                for sample in range(samples)
            ]
            answers = [_answer(output.completion, model.chat) for output in outputs]
            verdicts = scorer.verdicts(task, [output.problem for output in outputs], answers, advance)
            rows = [_row(output, task, verdict) for output, verdict in zip(outputs, verdicts, strict=True)]
            write_jsonl(out_dir / f"{task.name}.jsonl", rows)
            estimates[task.name] = estimate(rows, model.chat)
    if scorer.timeouts:
        say(f"[yellow]{scorer.timeouts} answers of the {label} took the grader too long and count as wrong[/]")
    return estimates


def _generate(
    model: ModelHandle, cfg: Config, problems: Mapping[str, Sequence[Problem]], store_root: Path, label: str
) -> dict[str, CompletionStore]:
    """Generates what is missing of all tasks in one stream; returns the store of each, by the name in `evaluation.tasks`."""
    evaluation, chat = cfg.evaluation, model.chat
    headers = {name: _header(name, cfg, chat, model.model_hash) for name in problems}
    folders = {name: store_root / TASKS[name].name / content_hash(header) for name, header in headers.items()}
    # By folder, as a task may be named in two ways.
    stores = {folders[name]: CompletionStore(folders[name], header) for name, header in headers.items()}
    requests = {
        folders[name]: [
            Request(_key(problem, sample), chat.prompt_ids(problem.prompt))
            for problem in problems[name]
            for sample in range(evaluation.samples)
        ]
        for name in in_stream(problems)
    }
    with ExitStack() as stack:
        for store in stores.values():
            stack.enter_context(store)
        wanted = [(stores[folder], own) for folder, own in requests.items()]
        generate_stored(model.engine, wanted, sampling_of(evaluation, chat.stop_ids), f"{label}: outputs")
    return {name: stores[folder] for name, folder in folders.items()}


def in_stream(names: Iterable[str]) -> list[str]:
    """Returns tasks in the order in which their outputs are begun: those with the longest ones first, as `Task.outputs` says.

    Where long outputs are begun last, the engines run nearly empty until the last of them ends. Tasks with outputs of the same
    length keep their order.
    """
    return sorted(names, key=lambda name: LENGTHS.index(TASKS[name].outputs), reverse=True)


def _stored(store: CompletionStore, problem: Problem, sample: int) -> StoredCompletion:
    completion = store.get(_key(problem, sample))
    assert completion is not None, "generated above"
    return completion


def _answer(completion: StoredCompletion, chat: Chat) -> str | None:
    return chat.parse(completion.text, finished=completion.finish_reason == STOP).answer


def _row(output: Output, task: Task, verdict: bool) -> dict[str, Any]:
    """Returns the line of `<task>.jsonl` for one output."""
    problem, completion = output.problem, output.completion
    row: dict[str, Any] = {"id": problem.id, "sample": output.sample, "kind": problem.kind, "prompt": problem.prompt}
    row |= {} if problem.gold is None else {"gold": problem.gold}
    row |= {"output": completion.text, "num_tokens": completion.num_tokens, "finish_reason": completion.finish_reason}
    return row | {KINDS[task.kind].verdict: verdict}


def estimate(rows: Sequence[Mapping[str, Any]], chat: Chat) -> dict[str, Estimate]:
    """Returns the estimates over the lines of one `<task>.jsonl`: the metric of their kind, then the rates beside it."""
    kind = KINDS[rows[0]["kind"]]
    by_problem: dict[str, dict[str, list[bool]]] = {}
    for row in rows:
        parsed = chat.parse(row["output"], finished=row["finish_reason"] == STOP)
        outcomes = {
            kind.metric: row[kind.verdict],
            "cap_hit_rate": row["finish_reason"] == LENGTH,
            "missing_thinking_rate": not parsed.trace,
            "early_stop_rate": row["finish_reason"] == STOP and not parsed.answer,
        }
        for metric, outcome in outcomes.items():
            by_problem.setdefault(metric, {}).setdefault(row["id"], []).append(outcome)
    estimates = {metric: rate(list(outcomes.values())) for metric, outcomes in by_problem.items()}
    return estimates if chat.thinks else estimates | {"missing_thinking_rate": rate([])}


def _problems(name: str, evaluation: EvaluationConfig, whole: bool = False) -> list[Problem]:
    return load_problems(
        name,
        split=EVALUATION,
        path=evaluation.path.get(TASKS[name].name),
        limit=None if whole else evaluation.limit,
        seed=evaluation.seed,
    )


def _header(name: str, cfg: Config, chat: Chat, model_hash: str) -> dict[str, Any]:
    """Returns everything that an output depends on besides its own problem and the number of its sample.

    Of the task that is every prompt, wherever it was read from: more problems, more samples, or another gold answer leave what
    is stored valid.
    """
    return store_header(
        EVALUATION_VERSION,
        model_hash,
        chat.identity,
        cfg.engine,
        task=TASKS[name].name,
        prompts=content_hash([(problem.id, problem.prompt) for problem in _problems(name, cfg.evaluation, whole=True)]),
        **sampling_settings(cfg.evaluation),
    )


def _key(problem: Problem, sample: int) -> str:
    return f"{problem.id}/{sample}"
