"""How the outputs to one task are generated: the section `evaluation`, with what it says of the task's kind and of the task.

A published protocol often samples reasoning and safety tasks in two ways, and gives one benchmark a budget of its own.
`evaluation.by_kind` and `evaluation.by_task` say so; everything that generates, plans or names outputs asks here.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

from dgr_lightning.config import EvaluationConfig
from dgr_lightning.config.schema import value_for
from dgr_lightning.errors import UserError
from dgr_lightning.tasks.metrics import KINDS
from dgr_lightning.tasks.prompt import what_is_missing
from dgr_lightning.tasks.registry import TASKS
from dgr_lightning.tasks.task import Task


@dataclass(frozen=True)
class TaskSettings:
    """How the outputs to one task are generated; each is a key of `evaluation`, where its sentence stands."""

    seed: int
    samples: int
    limit: int | None
    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
    max_new_tokens: int
    thinking_tokens: int | None
    prefill: str | None


CHANGEABLE = tuple(field.name for field in fields(TaskSettings) if field.name != "seed")
"""What `evaluation.by_kind` and `evaluation.by_task` may set."""


def settings_of(evaluation: EvaluationConfig, task: str) -> TaskSettings:
    """Returns the settings of a task: those of `by_task`, else those of `by_kind`, else those of the section.

    Args:
        evaluation: the section.
        task: a name that `TASKS` knows.

    Raises:
        UserError: a setting that is unknown or takes no such value.
    """
    chosen = {field.name: getattr(evaluation, field.name) for field in fields(TaskSettings)}
    for key, name in (("by_kind", TASKS[task].kind), ("by_task", TASKS[task].name)):
        chosen |= _checked(f"evaluation.{key}.{name}", getattr(evaluation, key).get(name, {}))
    return TaskSettings(**chosen)


def check_settings(evaluation: EvaluationConfig) -> None:
    """Checks what the section says of kinds and tasks, chosen or not, and that the settings of each chosen task go together.

    Raises:
        UserError: a kind, task or setting that does not exist, a value that it does not take, several samples of a greedy
            decoding, or a budget that leaves nothing for the answer; the message says what to write.
    """
    for key, known in (("by_kind", list(KINDS)), ("by_task", list(TASKS)), ("prompts", list(TASKS))):
        chosen = {TASKS[name].name for name in evaluation.tasks if name in TASKS or ":" in name}
        for name, values in getattr(evaluation, key).items():
            if name not in known and not (key != "by_kind" and name in chosen):
                what = "kind of task" if key == "by_kind" else "task"
                raise UserError(
                    f"evaluation.{key}.{name}: no {what} {name!r}.{_meant(name, known)} There are {', '.join(known)}."
                )
            if key != "prompts":
                _checked(f"evaluation.{key}.{name}", values)
    for name in evaluation.tasks:
        if name in TASKS or ":" in name:
            _check_together(evaluation, name)
            _check_prompt(evaluation, TASKS[name])


def drop_overridden(evaluation: dict[str, Any], given: Collection[str]) -> None:
    """Lets what the command line names win over what a protocol says of kinds and tasks.

    `evaluation=protocol-star1 evaluation.max_new_tokens=100` means 100 for every task, unless the command line itself says
    otherwise of one.

    Args:
        evaluation: the composed section, nested dicts; changed in place.
        given: the keys and groups that the command line names.
    """
    named = {key.removeprefix("evaluation.") for key in given if key.startswith("evaluation.")}
    for key in ("by_kind", "by_task"):
        section = evaluation.get(key)
        for name, values in section.items() if isinstance(section, dict) else ():
            if {key, f"{key}.{name}"} & named or not isinstance(values, dict):
                continue
            for setting in (named & set(values)) - {
                one.rpartition(".")[2] for one in named if one.startswith(f"{key}.{name}.")
            }:
                del values[setting]


def _checked(place: str, values: Any) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise UserError(f"{place}={values}: expected settings, such as {place}={{temperature: 0, max_new_tokens: 1024}}.")
    for name in values:
        if name not in CHANGEABLE:
            raise UserError(
                f"{place}.{name}: no setting of a task.{_meant(name, CHANGEABLE)} A kind or a task may have its own "
                f"{', '.join(CHANGEABLE)}."
            )
    return {name: value_for(f"evaluation.{name}", f"{place}.{name}", value) for name, value in values.items()}


def _check_together(evaluation: EvaluationConfig, name: str) -> None:
    settings, task = settings_of(evaluation, name), TASKS[name]
    if settings.samples > 1 and settings.temperature == 0:
        samples, temperature = (_place(evaluation, task.name, task.kind, key) for key in ("samples", "temperature"))
        raise UserError(
            f"{samples}={settings.samples} with {temperature}=0: greedy decoding gives the same text {settings.samples} times. "
            f"Give {samples}=1, or a temperature above 0."
        )
    if settings.thinking_tokens is not None and settings.thinking_tokens >= settings.max_new_tokens:
        thinking, budget = (_place(evaluation, task.name, task.kind, key) for key in ("thinking_tokens", "max_new_tokens"))
        raise UserError(
            f"{thinking}={settings.thinking_tokens} with {budget}={settings.max_new_tokens}: nothing is left for an answer. "
            f"Give {thinking}={max(1, settings.max_new_tokens // 2)}, or a larger {budget}."
        )


def _check_prompt(evaluation: EvaluationConfig, task: Task) -> None:
    template = evaluation.prompts.get(task.name)
    if template is not None and (missing := what_is_missing(template, choice=task.is_choice)):
        raise UserError(
            f"evaluation.prompts.{task.name}: it does not hold {missing}, in whose place a problem's own text stands. Write it "
            "there, or set it to null for the task's own wording."
        )


def _place(evaluation: EvaluationConfig, task: str, kind: str, setting: str) -> str:
    """Returns the key that a task's setting comes from."""
    if setting in evaluation.by_task.get(task, {}):
        return f"evaluation.by_task.{task}.{setting}"
    return f"evaluation.by_kind.{kind}.{setting}" if setting in evaluation.by_kind.get(kind, {}) else f"evaluation.{setting}"


def _meant(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f" Did you mean {near[0]}?" if near else ""
