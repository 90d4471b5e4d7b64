"""Renders templates that others wrote, with limits on time, memory and the size of the text.

Templates of refinement are rendered in jinja2's sandbox, where a variable that is not given is an error; chat templates by the
code of transformers. Both happen in a process of their own (`rendering_worker`), one of each kind, which this process keeps
until it ends: a rendering costs 0.1 ms more than it takes by itself.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from dgr_lightning.errors import UserError
from dgr_lightning.limited_process import CannotStart, LimitedProcess, NoAnswer, OutOfTime
from dgr_lightning.prompts.rendering_worker import CHAT, MEMORY_BYTES, REFINEMENT

SECONDS = 10.0
"""Wall-clock limit of a rendering, which takes milliseconds: a busy machine must not be mistaken for a loop."""

MAX_CHARACTERS = 4 * 2**20
"""Characters that a template may write besides 16 for each that it is given: a million tokens, and no context is longer."""

_PER_CHARACTER = 16


class RenderingFailure(Exception):
    """A template that cannot be rendered; the message is the end of a sentence that begins with the template's name."""


def render(template: str, values: Mapping[str, str]) -> str:
    """Returns the text of a refinement template.

    Args:
        template: its Jinja2 source.
        values: its variables.

    Raises:
        RenderingFailure: it is no template, fails, or exceeds a limit.
        UserError: the process that renders cannot be started.
    """
    room = _room(template, *values.values())
    return str(_ask(REFINEMENT, {"template": template, "values": dict(values), "max_characters": room})["text"])


def variables(template: str) -> set[str]:
    """Returns the names of the variables that a refinement template uses.

    Raises:
        RenderingFailure: it is no template.
        UserError: as for `render`.
    """
    return set(_ask(REFINEMENT, {"template": template})["variables"])


def render_chat(template: str, messages: Sequence[Mapping[str, str]], values: Mapping[str, Any]) -> str:
    """Returns a conversation as a chat template writes it, up to where the model continues.

    Args:
        template: its Jinja2 source.
        messages: each with `role` and `content`.
        values: further variables, JSON-able, and `tools` and `documents` of transformers' `apply_chat_template`.

    Raises:
        RenderingFailure: as for `render`.
        UserError: as for `render`.
    """
    question = {"template": template, "messages": list(messages), "values": dict(values)}
    room = _room(template, *(text for message in messages for text in message.values()))
    return str(_ask(CHAT, question | {"max_characters": room})["text"])


def prepare_chat() -> None:
    """Begins to start the process that renders chat templates, so that nobody waits for it later."""
    _process(CHAT).start()


@cache
def _process(kind: str) -> LimitedProcess:
    return LimitedProcess("dgr_lightning.prompts.rendering_worker", kind)


def _room(*given: str) -> int:
    return MAX_CHARACTERS + _PER_CHARACTER * sum(map(len, given))


def _ask(kind: str, question: Mapping[str, Any]) -> dict[str, Any]:
    try:
        answer = _process(kind).ask(question, SECONDS)
    except CannotStart as error:
        raise UserError(
            f"Templates: jinja2 and transformers cannot be started by {sys.executable}. Install what the project needs: "
            "pip install -r requirements.txt."
        ) from error
    except OutOfTime as error:
        raise RenderingFailure(f"does not come to an end within {SECONDS:g} s") from error
    except NoAnswer as error:
        raise RenderingFailure(f"takes more than {MEMORY_BYTES // 2**30} GiB of memory, or crashes") from error
    if "failure" in answer:
        raise RenderingFailure(answer["failure"])
    return answer
