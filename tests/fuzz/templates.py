"""Text files of a user's own: rewriting templates, phrases, patterns. Each is taken, or refused by one message."""

from __future__ import annotations

from dgr_lightning.errors import UserError
from dgr_lightning.prompts.templates import SHIPPED, TemplateFile
from dgr_lightning.refinement.meta_thinking import SHIPPED_PATTERNS, MetaThinking
from dgr_lightning.scoring.judges.keywords import KeywordJudge
from tests.fuzz.scratch import scratch_folder

_FILE = scratch_folder() / "text"
TEMPLATE = TemplateFile("trace_template", SHIPPED / "dgr_trace.jinja", ("question", "trace"), "trace")
_PATTERNS = SHIPPED_PATTERNS.read_bytes()

SEEDS = [
    b"\0" + (SHIPPED / "dgr_trace.jinja").read_bytes(),
    b"\0{% if question %}{{ question | trim | upper }}{% else %}-{% endif %}{{ trace }}",
    b"\0{% set a = [1, 2] %}{% for b in a %}{{ loop.index * b }}{% endfor %}{{ trace[:3] }}",
    b"\0{% macro f(a) %}{{ a }}{% endmacro %}{{ f(trace) }}{# note #}{{ trace.split('a') | join('-') }}",
    b"\0{{ trace }}{{ question.__class__ }}{{ 'x' * 3 }}{{ 7 // 2 ** 2 }}",
    b"\1sorry\nI can't help\n# note\n*** as an AI\n",
    b"\2" + _PATTERNS[:600],
    b"\2{a} = b|c\n/the (original|given) {a}/\nin my own words\n/[a-z]+ \\w (?:x|y)?/\n",
]


def check(data: bytes) -> None:
    """Takes bytes for a text file of one of three kinds, by the first of them."""
    if not data:
        return
    _FILE.write_bytes(data[1:])
    check_file(data[0] % 3)


def check_text(kind: int, text: str) -> None:
    """Takes a text for a file of a kind."""
    _FILE.write_text(text, encoding="utf-8", newline="")
    check_file(kind)


def check_file(kind: int) -> None:
    """Takes the file for one of a kind: 0 template, 1 phrases, 2 patterns."""
    try:
        if kind == 0:
            template = TEMPLATE.load(str(_FILE))
            assert isinstance(template.render(question="q", trace="{{ t }}", answer="a"), str)
        elif kind == 1:
            assert isinstance(KeywordJudge(_FILE).refuses("I am sorry, I can't."), bool)
        else:
            assert isinstance(MetaThinking.load(str(_FILE)).found("In my own words: a"), set)
    except UserError as error:
        assert str(_FILE) in str(error), f"does not name the file: {error}"
