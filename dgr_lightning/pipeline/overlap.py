"""Prompts that stand both in the source set and in what a run is measured on: training on them flatters the figures; and
prompts that stand in several parts of a mixture.

Two prompts are the same where their words are (`tasks.task.fingerprint`): case, punctuation and white space do not count. 32 of
HarmBench's 400 behaviours stand in STAR-1 word for word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain

from dgr_lightning.config import Config, EvaluationConfig, ProbesConfig
from dgr_lightning.data.sources import Sources, load_examples
from dgr_lightning.errors import UserError
from dgr_lightning.tasks.loader import SECTIONS, load_problems, task_hashes
from dgr_lightning.tasks.registry import TASKS
from dgr_lightning.tasks.task import EVALUATION, PROBE, fingerprint


def measured_prompts(cfg: Config, unread: list[str] | None = None) -> dict[str, frozenset[str]]:
    """Returns task → fingerprints of all its prompts, over the evaluation's tasks and the probes'.

    Args:
        cfg: `evaluation` and `probes` are read.
        unread: receives the tasks that cannot be read; None: such a task is an error.

    Raises:
        UserError: a task cannot be read.
    """
    found: dict[str, frozenset[str]] = {}
    for split, section in _sections(cfg):
        for name in section.tasks:
            task = TASKS[name].name
            try:
                problems = load_problems(name, split=split, path=section.path.get(task))
            except UserError:
                if unread is None:
                    raise
                unread.append(f"{task} ({split})")
                continue
            found[task] = found.get(task, frozenset()) | {fingerprint(problem.question) for problem in problems}
    return found


def measured_hashes(cfg: Config) -> list[list[str]]:
    """Returns what `measured_prompts` depends on: the content hashes of the tasks."""
    return [task_hashes(section.tasks, split, section.path) for split, section in _sections(cfg)]


def overlap(prompts: Iterable[str], measured: dict[str, frozenset[str]]) -> dict[str, int]:
    """Returns task → how many of the prompts are among its own, without the tasks that share none."""
    fingerprints = [fingerprint(prompt) for prompt in prompts]
    counts = {task: sum(one in of_task for one in fingerprints) for task, of_task in measured.items()}
    return {task: count for task, count in counts.items() if count}


def load_sources(cfg: Config, measured: dict[str, frozenset[str]]) -> Sources:
    """Returns the source set of a run; with `data.drop_overlap` without rows whose prompt is measured on.

    Raises:
        UserError: as `load_examples`.
    """
    known = frozenset().union(*measured.values())
    is_measured = (lambda prompt: fingerprint(prompt) in known) if cfg.data.drop_overlap else None
    return load_examples(cfg.data, cfg.seed, is_measured)


def num_shared(prompts: Sequence[str], part_sizes: Sequence[int]) -> int:
    """Returns how many different prompts stand in more than one part of a mixture.

    Args:
        prompts: of the whole set, part by part.
        part_sizes: number of prompts of each part; empty where the set is none.
    """
    ends = list(accumulate(part_sizes))
    parts = [{fingerprint(prompt) for prompt in prompts[end - size : end]} for size, end in zip(part_sizes, ends, strict=True)]
    return sum(count > 1 for count in Counter(chain.from_iterable(parts)).values())


def _sections(cfg: Config) -> list[tuple[str, EvaluationConfig | ProbesConfig]]:
    sections = [(split, getattr(cfg, SECTIONS[split])) for split in (EVALUATION, PROBE)]
    return [(split, section) for split, section in sections if split == EVALUATION or cfg.probes.every]
