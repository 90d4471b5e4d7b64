"""Templates: what is refused before a run, what the shipped ones show, and that model text is never evaluated as one."""

from __future__ import annotations

import pytest

from dgr_lightning.config import RefineConfig
from dgr_lightning.errors import UserError
from dgr_lightning.refinement.strategies.dgr import TEMPLATES
from dgr_lightning.refinement.strategy import strategy_of


@pytest.mark.parametrize(
    ("part", "text", "words"),
    [
        (
            "trace",
            "Say {{ trace }} for {{ name }}.",
            ["refine.trace_template", "no variable name", "{{ question }}, {{ trace }}"],
        ),
        ("trace", "Say {{ trace }} or {{ answer }}.", ["no variable answer"]),
        ("answer", "Say {{ trace }} again.", ["refine.answer_template", "never shows the answer", "{{ answer }}"]),
        ("trace", "line one\n{% if %}{{ trace }}", ["line 2", "not a Jinja2 template"]),
        ("trace", "{{ trace / 0 }}", ["fails when it is rendered"]),
        ("trace", "{{ trace.no_such_thing }}", ["fails when it is rendered"]),
        ("trace", "{{ trace.__class__.__mro__ }}", ["fails when it is rendered"]),
        ("trace", "{{ trace }}{% include 'other' %}", ["fails when it is rendered"]),
    ],
)
def test_a_template_that_cannot_work_is_refused(tmp_path, part, text, words):
    path = tmp_path / "mine.jinja"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        strategy_of(RefineConfig(**{f"{part}_template": str(path)})).check()
    assert all(word in str(caught.value) for word in [str(path), *words])


def test_a_template_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / "mine.jinja"
    path.write_bytes(b"{{ trace }} \xff")
    with pytest.raises(UserError, match="not UTF-8"):
        TEMPLATES["trace"].load(str(path))


def test_the_shipped_templates_show_what_they_are_given():
    trace = TEMPLATES["trace"].load(None)
    answer = TEMPLATES["answer"].load(None)
    assert (
        trace.render(question="Q?", trace="T.", answer="A.")
        == "Question: Q?\n\nExpress this reasoning in your own words: T.\n\nReply with the reasoning only."
    )
    assert trace.render(question="", trace="T.", answer="A.").startswith("Express this reasoning")
    assert answer.render(question="Q?", trace="T.", answer="A.") == (
        "Question: Q?\n\nReasoning: T.\n\nExpress this answer in your own words: A.\n\nReply with the answer only."
    )


def test_model_text_is_never_evaluated_as_a_template():
    hostile = "{{ 7 * 7 }} {% for x in range(3) %}x{% endfor %} {# gone #}"
    assert hostile in TEMPLATES["trace"].load(None).render(question=hostile, trace=hostile, answer="")


def test_a_users_template_replaces_the_shipped_one(tmp_path):
    path = tmp_path / "mine.jinja"
    path.write_text("Again: {{ trace }}", encoding="utf-8")
    assert TEMPLATES["trace"].load(str(path)).render(question="Q?", trace="T.", answer="") == "Again: T."
