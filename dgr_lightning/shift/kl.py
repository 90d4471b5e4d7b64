"""How far tuning moved a model: the Kullback-Leibler divergence of the base from the tuned model, on traces of the base.

The base answers prompts of every kind, sampled from its own distribution (temperature 1, no nucleus), and both models score the
same tokens, the end token included where the base set it. For each token, the expectation of d = log p_base - log p_tuned is
KL(base ‖ tuned) given that prefix, so the mean of d over tokens is an unbiased estimate of the KL per token: `kl`. Beside it
stands `k3`, the mean of exp(-d) - 1 + d (Schulman, "Approximating KL divergence", 2020,
http://joschu.net/blog/kl-approx.html): it has the same expectation, is never negative, and has the smaller variance as long as
the models are close. Where they are far apart it rests on rare tokens that the tuned model finds much likelier than the base; a
sample without them makes it, and its interval, too small: then trust `kl`. Intervals are over prompts.

Any engine that generates and scores will do. Traces end after `shift.max_new_tokens`; the figures are over these tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dgr_lightning.config import Config
from dgr_lightning.console import progress
from dgr_lightning.engines.engine import LENGTH, STOP, Engine, Request, Sampling
from dgr_lightning.engines.model_handle import ModelHandle
from dgr_lightning.errors import UserError
from dgr_lightning.generation.shards import ShardedRows, shard_of
from dgr_lightning.generation.store_headers import store_header
from dgr_lightning.hashes import content_hash, sorted_by_hash
from dgr_lightning.statistics.bootstrap import ratio_of_sums
from dgr_lightning.tasks.loader import load_problems
from dgr_lightning.tasks.metrics import KINDS
from dgr_lightning.tasks.registry import TASKS
from dgr_lightning.tasks.task import PROBE, Problem

DIVERGENCE_VERSION = 1
"""Hashed with stored traces: raise it whenever this code would sample something else for the same config."""

ALL = "all"

# Traces between two updates of the progress bar; the engine forms its own batches.
_SCORED_AT_ONCE = 64


@dataclass(frozen=True)
class Trace:
    """A model's output on a prompt.

    Attributes:
        id: the problem's.
        kind: `reasoning`, `harmful` or `benign`.
        prompt_ids: the whole prompt.
        target_ids: the output, with the end token where the model set one.
        text: the output decoded, without the end token.
        finish_reason: `stop` or `length`.
    """

    id: str
    kind: str
    prompt_ids: Sequence[int]
    target_ids: Sequence[int]
    text: str
    finish_reason: str


def load_prompts(cfg: Config) -> list[Problem]:
    """Returns `shift.prompts` problems of each kind, from the probe split of the tasks in `probes.tasks`.

    The problems of all tasks of a kind are ranked together by the hash of their ids: a larger number contains the draw of a
    smaller one.

    Raises:
        UserError: no task is named, or its problems cannot be read.
    """
    if not cfg.probes.tasks:
        raise UserError(
            f"shift.prompts={cfg.shift.prompts}: there are no tasks to take prompts from. Name some that have a probe split, "
            "such as probes.tasks=[gsm8k,advbench,jailbreakbench_benign], or write shift.prompts=0."
        )
    chosen = []
    for kind in KINDS:
        tasks = [(name, TASKS[name].name) for name in cfg.probes.tasks if TASKS[name].kind == kind]
        problems = [
            problem for name, own in tasks for problem in load_problems(name, split=PROBE, path=cfg.probes.path.get(own))
        ]
        chosen += sorted_by_hash(problems, lambda problem: problem.id)[: cfg.shift.prompts]
    return chosen


def write_traces(model: ModelHandle, problems: Sequence[Problem], cfg: Config, store_root: Path, label: str) -> list[Trace]:
    """Returns a model's output on every prompt, generated now or stored before, in the order of `problems`.

    Two models sample with the same noise: equal models write equal texts, and texts diverge where the models do.

    Args:
        model: its engine is started only where a trace is missing.
        problems: `kind` and `prompt` are read.
        cfg: `shift` and `engine` are read; none of their values is `auto`.
        store_root: traces are stored under it as they finish, in a folder named by the hash of everything they depend on.
        label: names the progress bar.
    """
    chat = model.chat
    settings = {"max_new_tokens": cfg.shift.max_new_tokens, "seed": cfg.shift.seed}
    header = store_header(DIVERGENCE_VERSION, model.model_hash, chat.identity, cfg.engine, **settings)
    # The end token is scored too, and a completion does not say which of several it was: only one may end it here.
    sampling = Sampling(1.0, 1.0, cfg.shift.max_new_tokens, cfg.shift.seed, (chat.eos_id,))
    keys = [f"{problem.id}/{content_hash(problem.prompt)}" for problem in problems]
    prompts = {key: chat.prompt_ids(problem.prompt) for key, problem in zip(keys, problems, strict=True)}
    with ShardedRows(store_root / content_hash(header), header) as store:
        for shard in sorted({shard_of(key) for key in keys if key not in store}):
            store.claim(shard, wait=True)
        # Not `generate_stored`, whose stores keep texts alone: a trace is scored by its token ids.
        requests = [Request(key, prompts[key]) for key in prompts if key not in store]
        if requests:
            with progress(label, len(requests)) as advance:
                for completion in model.engine().generate(requests, sampling):
                    row = {"token_ids": list(completion.token_ids), "text": completion.text}
                    store.write(completion.key, row | {"finish_reason": completion.finish_reason})
                    advance(1)
        rows = [store.row(key) for key in keys]
    return [_trace(problem, prompts[key], row, chat.eos_id) for problem, key, row in zip(problems, keys, rows, strict=True)]


def _trace(problem: Problem, prompt_ids: Sequence[int], row: Mapping[str, Any] | None, eos_id: int) -> Trace:
    assert row is not None, "written above"
    end = [eos_id] if row["finish_reason"] == STOP else []
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


def kl_divergence(
    traces: Sequence[Trace], base: Sequence[Sequence[float]], tuned: Sequence[Sequence[float]]
) -> dict[str, dict[str, Any]]:
    """Returns the KL divergence in nats per token, over all prompts and for each kind.

    Args:
        traces: outputs of the base.
        base: trace → token → log-probability under the base.
        tuned: the same under the tuned model.

    Returns:
        `all`, and every kind among the traces → `kl` and `k3` (estimates; n is the number of prompts), `tokens`, and `cut`:
        how many traces ran into the limit.
    """
    differences = [np.subtract(first, second) for first, second in zip(base, tuned, strict=True)]
    kinds = [ALL, *(kind for kind in KINDS if any(trace.kind == kind for trace in traces))]
    return {kind: _figures(kind, traces, differences) for kind in kinds}


def _figures(kind: str, traces: Sequence[Trace], differences: Sequence[np.ndarray]) -> dict[str, Any]:
    own = [(trace, d) for trace, d in zip(traces, differences, strict=True) if kind in (ALL, trace.kind)]
    tokens = [len(d) for _, d in own]
    totals: Mapping[str, list[float]] = {
        "kl": [float(d.sum()) for _, d in own],
        "k3": [float((np.expm1(-d) + d).sum()) for _, d in own],
    }
    estimates: dict[str, Any] = {name: ratio_of_sums(total, tokens).to_json() for name, total in totals.items()}
    return estimates | {"tokens": sum(tokens), "cut": sum(trace.finish_reason == LENGTH for trace, _ in own)}
