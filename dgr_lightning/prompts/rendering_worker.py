"""The process in which templates are rendered; `rendering` starts it and asks.

A template is a program, and one that somebody else wrote: it can loop without an end and ask for any amount of memory. There is
a process for the templates of refinement, which needs jinja2 alone, and one for chat templates, which renders as transformers
does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from dgr_lightning.errors import one_line
from dgr_lightning.limited_process import serve

REFINEMENT, CHAT = "refinement", "chat"
MEMORY_BYTES = 2**30
"""The address space of the process, of which Python and what it imports take about a tenth."""

Question = dict[str, Any]
Answer = dict[str, Any]


def main() -> None:
    """Answers questions about templates of the kind that the command line names.

    To `{"template", "values", "max_characters"}`, for chat templates with `"messages"`, the answer is `{"text"}`; to
    `{"template"}` alone it is `{"variables"}`; where a template fails, it is `{"failure"}`, the end of a sentence.
    """
    serve({REFINEMENT: _refinement, CHAT: _chat}[sys.argv[2]], MEMORY_BYTES)


def _refinement() -> Callable[[Question], Answer]:
    from jinja2 import StrictUndefined, meta
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(undefined=StrictUndefined)
    compiled = lru_cache(environment.from_string)

    def answer(question: Question) -> Answer:
        if "values" not in question:
            return {"variables": sorted(meta.find_undeclared_variables(environment.parse(question["template"])))}
        return {"text": compiled(question["template"]).render(question["values"])}

    return _guarded(answer)


def _chat() -> Callable[[Question], Answer]:
    render = _transformers_rendering()

    def answer(question: Question) -> Answer:
        texts, _ = render(
            [question["messages"]], chat_template=question["template"], add_generation_prompt=True, **question["values"]
        )
        return {"text": texts[0]}

    return _guarded(answer)


def _guarded(answer: Callable[[Question], Answer]) -> Callable[[Question], Answer]:
    """Returns a function that answers with a failure where a template has one, and where its text is too long."""

    def guarded(question: Question) -> Answer:
        try:
            given = answer(question)
        except Exception as error:
            return {"failure": _failure(error)}
        if len(given.get("text", "")) > question.get("max_characters", 0):
            return {"failure": f"writes more than {question['max_characters']:,} characters"}
        return given

    return guarded


def _failure(error: Exception) -> str:
    from jinja2 import TemplateError, TemplateSyntaxError

    if isinstance(error, TemplateSyntaxError):
        return f"is not a Jinja2 template (line {error.lineno}: {_words(error.message)})"
    if isinstance(error, MemoryError):
        return f"takes more than {MEMORY_BYTES // 2**30} GiB of memory"
    if isinstance(error, RecursionError):
        return "fails when it is rendered (it calls itself without an end, or is nested too deeply)"
    words = _words(error)
    if type(error) is TemplateError:  # what a chat template raises itself
        return f"refuses a message ({words})"
    return f"fails when it is rendered ({type(error).__name__}: {words})"


def _words(message: object) -> str:
    """Returns the beginning of a message, which a template may have made up, without what a terminal would act on."""
    return "".join(character if character.isprintable() else "?" for character in one_line(str(message)[:1000], 200))


def _transformers_rendering() -> Callable[..., tuple[list[str], Any]]:
    """Imports transformers' own rendering, without the rest of transformers where that works.

    It lies in a file that needs two others. With empty packages in the place of `transformers` and `transformers.utils` these
    are all that is imported, in 0.3 s; the packages' own `__init__` takes four times as long.
    """
    spec = find_spec("transformers")
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError("transformers is not installed")
    for name, below in (("transformers", ""), ("transformers.utils", "/utils")):
        package = ModuleType(name)
        package.__path__ = [folder + below for folder in spec.submodule_search_locations]
        sys.modules[name] = package
    module = "transformers.utils.chat_template_utils"
    try:
        rendering = import_module(module)
    except Exception:  # another release, in which the file needs more
        for name in [name for name in sys.modules if name.partition(".")[0] == "transformers"]:
            del sys.modules[name]
        rendering = import_module(module)
    render: Callable[..., tuple[list[str], Any]] = rendering.render_jinja_template
    return render


if __name__ == "__main__":
    main()
