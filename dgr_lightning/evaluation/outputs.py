"""The outputs of an evaluation: all tasks generated in one stream, stored as they finish, read back sample by sample.

Outputs are stored under everything that they depend on and nothing else: an interrupted evaluation resumes, more samples or
problems cost only what is new, and a base is evaluated once for a whole sweep.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from dgr_lightning.config import Config, EvaluationConfig
from dgr_lightning.engines.engine import Sampling
from dgr_lightning.engines.model_handle import ModelHandle
from dgr_lightning.evaluation.asking import Asking
from dgr_lightning.evaluation.thinking_budget import budgeted, joined
from dgr_lightning.generation.completions import CompletionStore, StoredCompletion
from dgr_lightning.generation.jobs import Job, Jobs, StoredRequest, run_jobs
from dgr_lightning.generation.store_headers import sampling_of, sampling_settings, store_header
from dgr_lightning.hashes import content_hash
from dgr_lightning.tasks.loader import load_problems
from dgr_lightning.tasks.registry import TASKS
from dgr_lightning.tasks.settings import TaskSettings, settings_of
from dgr_lightning.tasks.task import EVALUATION, LENGTHS, Problem

EVALUATION_VERSION = 2
"""Hashed with stored outputs: raise it whenever this code would generate something else for the same config."""


class Output(NamedTuple):
    """One sample of a problem.

    Attributes:
        problem: as it stands in the benchmark.
        sample: its number, from 0.
        completion: what the model wrote.
        message: what the user said, with an attack where there is one.
        text: the model's whole turn, from which trace and answer are parsed.
        begun: how that was begun for it; usually empty.
        thinking_capped: whether its thought was closed by `evaluation.thinking_tokens`.
    """

    problem: Problem
    sample: int
    completion: StoredCompletion
    message: str
    text: str
    begun: str = ""
    thinking_capped: bool = False


class _Wanted(NamedTuple):
    """The outputs that are wanted of a task, and where they are kept."""

    problems: Sequence[Problem]
    settings: TaskSettings
    asking: Asking
    store: CompletionStore

    @property
    def begun(self) -> str:
        return self.asking.begun(self.settings)

    def samples(self) -> list[tuple[Problem, int]]:
        return [(problem, sample) for problem in self.problems for sample in range(self.settings.samples)]

    def jobs(self) -> Jobs:
        """Returns one job a sample."""
        samples = self.samples()
        return Jobs([_key(*one) for one in samples], lambda index: self._job(*samples[index]), [self.store])

    def _job(self, problem: Problem, sample: int) -> Job:
        key, settings, begun = _key(problem, sample), self.settings, self.begun
        prompt_ids = partial(self.asking.chat.prompt_ids, self.asking.message(problem), begun=begun)
        if settings.thinking_tokens is None:
            yield [StoredRequest(self.store, key, key, prompt_ids)]
        else:
            budgets = settings.thinking_tokens, settings.max_new_tokens
            yield from budgeted(self.store, key, prompt_ids, begun, self.asking.chat, *budgets)

    def output(self, problem: Problem, sample: int) -> Output:
        """Returns a sample that was generated."""
        key, begun, capped = _key(problem, sample), self.begun, False
        if self.settings.thinking_tokens is None:
            completion = self.store.get(key)
            assert completion is not None, "generated above"
        else:
            completion, capped = joined(self.store, key, begun, self.asking.chat)
        text = self.asking.chat.joined(begun, completion.text)
        return Output(problem, sample, completion, self.asking.message(problem), text, begun, capped)


def generate_outputs(model: ModelHandle, cfg: Config, store_root: Path, label: str) -> dict[str, list[Output]]:
    """Generates what is missing and returns the outputs by task, in the order of `evaluation.tasks`.

    Args:
        model: its engine is started only where an output is missing.
        cfg: the run.
        store_root: where outputs are stored.
        label: names the model in progress bars.

    Raises:
        UserError: a task's problems cannot be read, or the model cannot be asked so; nothing was generated then.
    """
    asking = Asking(cfg.evaluation, model.chat)
    with ExitStack() as stack:
        wanted = _wanted(cfg, asking, model.model_hash, store_root)
        for own in {id(own.store): own for own in wanted.values()}.values():
            stack.enter_context(own.store)
        for sampling, names in _by_sampling(wanted).items():
            # By store, as a task may be named in two ways.
            jobs = {wanted[name].store.folder: wanted[name].jobs() for name in names}
            run_jobs(list(jobs.values()), model.engine, sampling, f"{label}: outputs")
    return {name: [own.output(*sample) for sample in own.samples()] for name, own in wanted.items()}


def _wanted(cfg: Config, asking: Asking, model_hash: str, store_root: Path) -> dict[str, _Wanted]:
    wanted: dict[str, _Wanted] = {}
    stores: dict[Path, CompletionStore] = {}
    for name in cfg.evaluation.tasks:
        settings = settings_of(cfg.evaluation, name)
        header = _header(name, cfg, settings, asking, model_hash)
        folder = store_root / TASKS[name].name / content_hash(header)
        store = stores.setdefault(folder, CompletionStore(folder, header))
        wanted[name] = _Wanted(_problems(name, cfg.evaluation, settings.limit), settings, asking, store)
    return wanted


def _by_sampling(wanted: Mapping[str, _Wanted]) -> dict[Sampling, list[str]]:
    """Returns the tasks that are generated in one stream: those whose tokens are sampled alike, the longest outputs first."""
    streams: dict[Sampling, list[str]] = {}
    for name in in_stream(wanted):
        sampling = sampling_of(wanted[name].settings, wanted[name].asking.chat.stop_ids)
        streams.setdefault(sampling, []).append(name)
    return streams


def in_stream(names: Iterable[str]) -> list[str]:
    """Returns tasks in the order in which their outputs are begun: those with the longest ones first, as `Task.outputs` says.

    Where long outputs are begun last, the engines run nearly empty until the last of them ends. Tasks with outputs of the same
    length keep their order.
    """
    return sorted(names, key=lambda name: LENGTHS.index(TASKS[name].outputs), reverse=True)


def _problems(name: str, evaluation: EvaluationConfig, limit: int | None) -> list[Problem]:
    task = TASKS[name].name
    return load_problems(
        name,
        split=EVALUATION,
        path=evaluation.path.get(task),
        limit=limit,
        seed=evaluation.seed,
        prompt=evaluation.prompts.get(task),
    )


def _header(name: str, cfg: Config, settings: TaskSettings, asking: Asking, model_hash: str) -> dict[str, Any]:
    """Returns everything that an output depends on besides its own problem and the number of its sample.

    Of the task that is every message, wherever it was read from: more problems, more samples, or another gold answer leave what
    is stored valid.
    """
    begun = asking.begun(settings)
    came_later = {"thinking_tokens": settings.thinking_tokens, "begun": begun or None}
    return store_header(
        EVALUATION_VERSION,
        model_hash,
        asking.chat.identity,
        cfg.engine,
        task=TASKS[name].name,
        prompts=content_hash([(one.id, asking.message(one)) for one in _problems(name, cfg.evaluation, None)]),
        **sampling_settings(settings),
        **{key: value for key, value in came_later.items() if value is not None},
    )


def _key(problem: Problem, sample: int) -> str:
    return f"{problem.id}/{sample}"
