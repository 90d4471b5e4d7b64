"""`judge.also` at the door: a name, or a name with keys over the YAML of that choice of `judge`, becomes a `JudgeConfig`."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from dgr_lightning.cli.choice_files import near, read_choice
from dgr_lightning.config import JudgeConfig, schema
from dgr_lightning.errors import UserError
from dgr_lightning.scoring.judge import JUDGES
from dgr_lightning.scoring.panel import Panel

_KEYS = ("judge", *(field.name for field in fields(JudgeConfig) if field.name not in ("name", "also")))
_EXAMPLE = "judge.also=[keywords] or judge.also=[{judge: chat, url: http://127.0.0.1:8000/v1}]"


def take_judges(plain: Any, folders: tuple[Path, ...]) -> list[JudgeConfig]:
    """Takes `judge.also` out of composed YAML and returns its judges, typed. What is no list is left to the schema.

    A judge that does not say which part of an output it judges is given the one of the first judge.

    Args:
        plain: the whole config as nested dicts; changed in place.
        folders: where choices are looked up: conf/, and the folder of --config-dir.

    Raises:
        UserError: a key or a judge that does not exist, a value of the wrong type or out of range; the message names the entry.
    """
    judge = plain.get("judge") if isinstance(plain, dict) else None
    if not isinstance(judge, dict) or not isinstance(judge.get("also"), list):
        return []
    raw, judge["also"] = judge["also"], []
    return [_judge(one, f"judge.also[{index}]", judge.get("part"), folders) for index, one in enumerate(raw)]


def check_judges(judge: JudgeConfig, panel: Panel) -> None:
    """Checks what is asked of several judges together.

    Raises:
        UserError: no judge is given what it can judge.
    """
    for member, (key, one) in zip(panel.members, [("judge", judge), *_also(judge)], strict=False):
        if one.part != "answer" and member.parts == ("answer",):
            raise UserError(
                f"{key}.part={one.part}: {one.name} says whether an answer refuses, and nothing of a trace. Leave the key out, "
                "or take a judge that says harm, such as judge=chat."
            )


def _also(judge: JudgeConfig) -> list[tuple[str, JudgeConfig]]:
    return [(f"judge.also[{index}]", one) for index, one in enumerate(judge.also)]


def _judge(raw: Any, key: str, part: Any, folders: tuple[Path, ...]) -> JudgeConfig:
    own = {"judge": raw} if isinstance(raw, str) else raw
    if not isinstance(own, dict) or not isinstance(own.get("judge"), str):
        raise UserError(f"{key}={raw}: expected the name of a judge, or a mapping that has it as judge, such as {_EXAMPLE}.")
    for name in own:
        if name not in _KEYS:
            raise UserError(f"{key}.{name}: no key of a judge.{near(str(name), _KEYS)} A judge has: {', '.join(_KEYS)}.")
    choice = own["judge"]
    # One from outside has no file of its own.
    base = (
        {"name": choice}
        if JUDGES.is_outside(choice)
        else read_choice("judge", choice, f"{key}.judge={choice}", folders, "judge")
    )
    says_part = isinstance(part, str) and choice != "keywords"
    merged = ({"part": part} if says_part else {}) | base | {name: value for name, value in own.items() if name != "judge"}
    found: JudgeConfig = schema.section(JudgeConfig, merged, f"{key}.", {})
    return found
