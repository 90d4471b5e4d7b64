"""Templates that never end, ask for too much or fail: each is one message, and the next template is rendered as ever."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dgr_lightning.errors import UserError
from dgr_lightning.prompts import rendering
from dgr_lightning.prompts.rendering import RenderingFailure, render, render_chat, variables
from dgr_lightning.prompts.templates import SHIPPED, RewritingTemplate, TemplateFile

ON_LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux limits the memory of a process")
FILE = TemplateFile("trace_template", SHIPPED / "dgr_trace.jinja", ("question", "trace"), "trace")
MESSAGES = [{"role": "user", "content": "What?"}]

LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}"
MEMORY = "takes more than 1 GiB of memory"
ENDLESS = "calls itself without an end"
HOSTILE = {
    "three nested loops": (LOOPS, "does not come to an end within"),
    "text times a number": pytest.param("{{ 'a' * 10**10 }}", MEMORY, marks=ON_LINUX),
    "padding": pytest.param("{{ 'x'.center(10**10) }}", MEMORY, marks=ON_LINUX),
    "a wide number": pytest.param("{{ '%9999999999d' % 5 }}", MEMORY, marks=ON_LINUX),
    "text doubled in a loop": pytest.param(
        "{% set ns = namespace(s='aa') %}{% for i in range(9999) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        MEMORY,
        marks=ON_LINUX,
    ),
    "300 MB of text": ("{% for i in range(99999) %}{{ 'a' * 3000 }}{% endfor %}", "writes more than 4,19"),
    "a macro that calls itself": ("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", ENDLESS),
    "a loop that calls itself": ("{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}", ENDLESS),
    "deep nesting": ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", ENDLESS),
    "the way out of the sandbox": ("{{ ''.__class__.__mro__ }}", "fails when it is rendered (SecurityError"),
    "an attribute of nothing": ("{{ [].nothing.more }}", "fails when it is rendered (UndefinedError"),
    "an unknown filter": ("{{ 1 | nothing }}", "is not a Jinja2 template (line 1: No filter named 'nothing'"),
    "no template": ("one\n{% if %}", "is not a Jinja2 template (line 2: Expected an expression"),
    "an argument too many": ("{{ range(1, 2, 3, 4) }}", "fails when it is rendered (TypeError"),
    "an open end": ("{% for x in [1] %}", "is not a Jinja2 template (line 1: Unexpected end of template"),
}
CASES = [
    pytest.param(*getattr(case, "values", case), id=name, marks=getattr(case, "marks", ())) for name, case in HOSTILE.items()
]


@pytest.fixture(autouse=True)
def short_wait(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits ten seconds for the template that never ends."""
    if "three nested loops" in request.node.name:
        monkeypatch.setattr(rendering, "SECONDS", 1.0)


@pytest.mark.parametrize(("template", "words"), CASES)
def test_a_refinement_template_that_cannot_be_rendered_is_refused_by_its_override(tmp_path, template, words):
    path = tmp_path / "mine.jinja"
    path.write_text(template + "{{ trace }}", encoding="utf-8")
    with pytest.raises(UserError) as refusal:
        FILE.load(str(path))
    message = str(refusal.value)
    assert message.startswith(f"refine.trace_template={path}: ") and words in message and "\n" not in message, message
    assert "refine.trace_template=null" in message
    assert FILE.load(None).render(question="Q?", trace="T.", answer="").startswith("Question: Q?")


@pytest.mark.parametrize(("template", "words"), CASES)
def test_a_chat_template_that_cannot_be_rendered_fails_with_the_same_words(template, words):
    with pytest.raises(RenderingFailure) as failure:
        render_chat(template, MESSAGES, {})
    assert words in str(failure.value)
    assert render_chat("{{ messages[0].content }}", MESSAGES, {}) == "What?"


def test_what_a_chat_template_raises_is_quoted():
    with pytest.raises(RenderingFailure, match=r"^refuses a message \(no, thanks\?\]0;title\)$"):
        render_chat("{{ raise_exception('no,\n thanks\x1b]0;title') }}", MESSAGES, {})


def test_a_template_that_hangs_on_some_row_alone_is_the_users_error_too(tmp_path, monkeypatch):
    path = tmp_path / "mine.jinja"
    path.write_text("{% if 'magic' in trace %}" + LOOPS + "{% endif %}{{ trace }}", encoding="utf-8")
    template = FILE.load(str(path))
    monkeypatch.setattr(rendering, "SECONDS", 1.0)
    assert template.render(question="", trace="plain", answer="") == "plain"
    with pytest.raises(UserError) as refusal:
        template.render(question="", trace="some magic word", answer="")
    assert str(refusal.value).startswith(
        f"refine.trace_template={path}: does not come to an end within 1 s, for the trace that"
    )
    assert "'some magic word'" in str(refusal.value)
    assert template.render(question="", trace="plain", answer="") == "plain"


def test_a_template_in_code_is_called_by_its_name():
    with pytest.raises(UserError, match=r"^the template mine: fails when it is rendered \(ZeroDivisionError"):
        RewritingTemplate("mine", "{{ 1 / 0 }}{{ question }}", ("question",)).render(question="Q?", trace="", answer="")


def test_a_long_text_may_be_shown_several_times_and_a_short_one_not_a_million_times():
    text = "word " * 400_000
    assert render("{{ trace }}{{ trace }}", {"trace": text}) == text * 2
    with pytest.raises(RenderingFailure, match="writes more than"):
        render("{% for i in range(20) %}{{ trace }}{% endfor %}", {"trace": text})


def test_any_text_comes_through_unchanged():
    text = "Ünï 🦙\r\n\u2028 \x00 {{ 7 * 7 }} \ufdd0 \\ \"'"
    assert render("{{ trace }}", {"trace": text}) == text
    assert render_chat("{{ messages[0].content }}", [{"role": "user", "content": text}], {}) == text


def test_the_variables_of_a_template_are_those_that_it_is_to_be_given():
    assert variables("{{ a }}{% set b = 1 %}{{ b }}{% for c in d %}{{ c }}{% endfor %}") == {"a", "d"}


def imported(kind: str) -> list[str]:
    """Returns the first names of what the process of a kind imports."""
    script = (
        f"import sys; from dgr_lightning.prompts import rendering_worker as w; w._{kind}();"
        "print(*{name.partition('.')[0] for name in sys.modules} | {n for n in sys.modules if n.startswith('transformers.')})"
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()


def test_the_processes_import_nothing_heavy():
    refinement, chat = imported("refinement"), imported("chat")
    assert "jinja2" in refinement and not {"torch", "transformers", "tokenizers", "numpy"} & set(refinement)
    assert "transformers.utils.chat_template_utils" in chat and not {"torch", "tokenizers", "numpy"} & set(chat)
    assert "transformers.models" not in chat and "transformers.utils.generic" not in chat


def test_with_a_release_of_transformers_that_needs_all_of_itself_chats_are_rendered_too():
    script = (
        "import importlib, sys; from dgr_lightning.prompts import rendering_worker as w\n"
        "def once(name):\n"
        "    w.import_module = importlib.import_module\n"
        "    raise ImportError(name)\n"
        "w.import_module = once\n"
        "answer = w._chat()\n"
        "asked = {'template': '{{ messages[0].content }}', 'messages': [{'content': 'a'}], 'values': {}, 'max_characters': 9}\n"
        "print(answer(asked), 'transformers.utils.generic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'text': 'a'} True"
