"""The outputs of an evaluation: all tasks generated in one stream, stored as they finish, read back sample by sample.

Outputs are stored under everything that they depend on and nothing else: an interrupted evaluation resumes, more samples or
problems cost only what is new, and a base is evaluated once for a whole sweep.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from dgr_lightning.config import Config, EvaluationConfig
from dgr_lightning.engines.engine import Request
from dgr_lightning.engines.model_handle import ModelHandle
from dgr_lightning.generation.completions import CompletionStore, StoredCompletion
from dgr_lightning.generation.jobs import generate_stored
from dgr_lightning.generation.store_headers import sampling_of, sampling_settings, store_header
from dgr_lightning.hashes import content_hash
from dgr_lightning.models.chat import Chat
from dgr_lightning.tasks.loader import load_problems
from dgr_lightning.tasks.registry import TASKS
from dgr_lightning.tasks.task import EVALUATION, LENGTHS, Problem

EVALUATION_VERSION = 2
"""Hashed with stored outputs: raise it whenever this code would generate something else for the same config."""


class Output(NamedTuple):
    """One sample of a problem: the completion that is stored for it."""

    problem: Problem
    sample: int
    completion: StoredCompletion


def generate_outputs(model: ModelHandle, cfg: Config, store_root: Path, label: str) -> dict[str, list[Output]]:
    """Generates what is missing and returns the outputs by task, in the order of `evaluation.tasks`.

    Args:
        model: its engine is started only where an output is missing.
        cfg: the run.
        store_root: where outputs are stored.
        label: names the model in progress bars.

    Raises:
        UserError: a task's problems cannot be read; nothing was generated then.
    """
    problems = {name: _problems(name, cfg.evaluation) for name in cfg.evaluation.tasks}
    stores = _generate(model, cfg, problems, store_root, label)
    return {
        name: [
            Output(problem, sample, _stored(stores[name], problem, sample))
            for problem in own
            for sample in range(cfg.evaluation.samples_of(TASKS[name].name))
        ]
        for name, own in problems.items()
    }


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
            for sample in range(evaluation.samples_of(TASKS[name].name))
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
