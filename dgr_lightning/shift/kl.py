"""How far tuning moved a model: the Kullback-Leibler divergence of the base from the tuned model, on what the base writes.

The base writes on prompts of every kind, drawn from its own distribution (temperature 1, no nucleus), and both models score the
same tokens, the end token included where the base set it. So for each token the difference d = log p_base - log p_tuned has the
mean KL(base ‖ tuned) of what can follow that prefix, and the mean of d over tokens is an unbiased estimate of the KL per token:
`kl`. Beside it stands `k3`, the mean of exp(-d) - 1 + d (Schulman, "Approximating KL divergence", 2020,
http://joschu.net/blog/kl-approx.html): it has the same expectation, is never negative, and has the smaller variance as long as
the models are close. Where they are far apart it rests on rare tokens that the tuned model likes much better than the base; a
sample without them makes it too small, and its interval with it: then trust `kl`. Intervals are over prompts.

Any engine will do that generates and scores. What is written is cut after `shift.max_new_tokens`: the figures are those of that
many tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dgr_lightning.config import Config
from dgr_lightning.console import progress
from dgr_lightning.engines.engine import LENGTH, STOP, Engine, Request, Sampling
from dgr_lightning.errors import UserError
from dgr_lightning.generation.shards import ShardedRows, shard_of
from dgr_lightning.hashes import content_hash
from dgr_lightning.statistics.bootstrap import mean_per
from dgr_lightning.tasks.loader import load_problems
from dgr_lightning.tasks.metrics import HEADLINES
from dgr_lightning.tasks.registry import TASKS
from dgr_lightning.tasks.task import PROBE, Problem

if TYPE_CHECKING:
    from dgr_lightning.models.chat import Chat

DIVERGENCE_VERSION = 1
"""Part of what traces are stored under: one more whenever this code would sample something else for the same config."""

ALL = "all"

# Between two moves of the progress bar; the engine cuts its own batches.
_SCORED_AT_ONCE = 64


@dataclass(frozen=True)
class Trace:
    """What a model wrote on a prompt.

    Attributes:
        id: the problem's.
        kind: `reasoning`, `harmful` or `benign`.
        prompt_ids: the whole prompt.
        target_ids: what it wrote, with the end token where it set one.
        text: the same decoded, without the end token.
    """

    id: str
    kind: str
    prompt_ids: Sequence[int]
    target_ids: Sequence[int]
    text: str
    finish_reason: str


def load_prompts(cfg: Config) -> list[Problem]:
    """Returns `shift.prompts` problems of each kind, from the probe split of the tasks in `probes.tasks`.

    The problems of all tasks of a kind are ranked by the hash of their ids: a larger number holds all of a smaller one's.

    Raises:
        UserError: no task is named, or its problems cannot be had.
    """
    if not cfg.probes.tasks:
        raise UserError(
            f"shift.prompts={cfg.shift.prompts}: there are no tasks to take prompts from. Name some that have a probe split, "
            "such as probes.tasks=[gsm8k,advbench,jailbreakbench_benign], or write shift.prompts=0."
        )
    chosen = []
    for kind in HEADLINES:
        tasks = [task for task in cfg.probes.tasks if TASKS[task].kind == kind]
        problems = [problem for task in tasks for problem in load_problems(task, split=PROBE, path=cfg.probes.path.get(task))]
        ranked = sorted(problems, key=lambda problem: hashlib.sha256(problem.id.encode()).digest())
        chosen += ranked[: cfg.shift.prompts]
    return chosen


def write_traces(
    engine: Callable[[], Engine],
    chat: Chat,
    problems: Sequence[Problem],
    cfg: Config,
    model_hash: str,
    store_root: Path,
    label: str,
) -> list[Trace]:
    """Lets a model write on every prompt, or reads what it wrote before; in the order of `problems`.

    Two models write with the same noise: the same model writes the same, and texts part where the models do.

    Args:
        engine: gives the engine; called only where a trace is missing.
        chat: the model's chat format.
        problems: what it writes on; `kind` and `prompt` are read.
        cfg: `shift` and `engine` are read, whose values are none of them `auto`.
        model_hash: hash of the model's content.
        store_root: traces are stored under it as they finish, in a folder of everything that they depend on.
        label: what the progress bar says.
    """
    assert "auto" not in (cfg.engine.name, cfg.engine.precision), "the door resolves engine.name and engine.precision"
    header = {
        "version": DIVERGENCE_VERSION,
        "model": model_hash,
        "chat_style": chat.style,
        "max_new_tokens": cfg.shift.max_new_tokens,
        "seed": cfg.shift.seed,
        "max_length": cfg.engine.max_length,
        "engine": cfg.engine.identity,
        "precision": cfg.engine.precision,
    }
    # Of several end tokens a completion does not say which it was, and that token is scored: here there is only one.
    sampling = Sampling(1.0, 1.0, cfg.shift.max_new_tokens, cfg.shift.seed, (chat.eos_id,))
    keys = [f"{problem.id}/{content_hash(problem.prompt)}" for problem in problems]
    prompts = {key: chat.prompt_ids(problem.prompt) for key, problem in zip(keys, problems, strict=True)}
    with ShardedRows(store_root / content_hash(header), header) as store:
        for shard in sorted({shard_of(key) for key in keys if key not in store}):
            store.claim(shard, wait=True)
        requests = [Request(key, prompts[key]) for key in prompts if key not in store]
        if requests:
            with progress(label, len(requests)) as advance:
                for completion in engine().generate(requests, sampling):
                    row = {"token_ids": list(completion.token_ids), "text": completion.text}
                    store.write(completion.key, row | {"finish_reason": completion.finish_reason})
                    advance(1)
        return [_trace(problem, prompts[key], store, key, chat) for key, problem in zip(keys, problems, strict=True)]


def _trace(problem: Problem, prompt_ids: Sequence[int], store: ShardedRows, key: str, chat: Chat) -> Trace:
    row = store.row(key)
    assert row is not None, "written above"
    end = [chat.eos_id] if row["finish_reason"] == STOP else []
    return Trace(problem.id, problem.kind, prompt_ids, [*row["token_ids"], *end], row["text"], row["finish_reason"])


def score_traces(engine: Engine, traces: Sequence[Trace], label: str) -> list[list[float]]:
    """Returns the natural-log probability of every token of every trace under a model."""
    logprobs = []
    with progress(label, len(traces)) as advance:
        for begin in range(0, len(traces), _SCORED_AT_ONCE):
            chosen = traces[begin : begin + _SCORED_AT_ONCE]
            logprobs += engine.score([(trace.prompt_ids, trace.target_ids) for trace in chosen])
            advance(len(chosen))
    return logprobs


def divergence(
    traces: Sequence[Trace], base: Sequence[Sequence[float]], tuned: Sequence[Sequence[float]]
) -> dict[str, dict[str, Any]]:
    """Returns the KL divergence in nats per token, over all prompts and for each kind.

    Args:
        traces: what the base wrote.
        base: trace → token → log-probability under the base.
        tuned: the same under the tuned model.

    Returns:
        `all`, and every kind that there is → `kl` and `k3` (measures; n is the number of prompts), `tokens`, and `cut`: how
        many traces ran into the limit.
    """
    differences = [np.subtract(first, second) for first, second in zip(base, tuned, strict=True)]
    kinds = [ALL, *(kind for kind in HEADLINES if any(trace.kind == kind for trace in traces))]
    return {kind: _figures(kind, traces, differences) for kind in kinds}


def _figures(kind: str, traces: Sequence[Trace], differences: Sequence[np.ndarray]) -> dict[str, Any]:
    own = [(trace, d) for trace, d in zip(traces, differences, strict=True) if kind in (ALL, trace.kind)]
    tokens = [len(d) for _, d in own]
    totals: Mapping[str, list[float]] = {
        "kl": [float(d.sum()) for _, d in own],
        "k3": [float((np.expm1(-d) + d).sum()) for _, d in own],
    }
    measures: dict[str, Any] = {name: mean_per(tokens, total).to_json() for name, total in totals.items()}
    return measures | {"tokens": sum(tokens), "cut": sum(trace.finish_reason == LENGTH for trace, _ in own)}
