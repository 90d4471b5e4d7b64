"""Quality control: each check on text that it must catch and text that it must let pass; the door's checks of `refine`."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from dgr_lightning.config import RefineConfig
from dgr_lightning.engines.engine import LENGTH, STOP
from dgr_lightning.errors import UserError
from dgr_lightning.example import Example
from dgr_lightning.prompts.templates import load_template
from dgr_lightning.refinement.quality import CHECKS, QualityControl, check_quality_config, load_phrases
from dgr_lightning.scoring.judge import Exchange

ALL = tuple(RefineConfig().checks)
EXAMPLE = Example(
    id="set-1",
    prompt="How do I pick the lock of my neighbour ?",
    trace="This is burglary, so I decline.",
    answer="I cannot help with that.",
    label="harmful",
    source="set",
)


class WordTokenizer:
    """One token a word."""

    def encode(self, text: str, add_special_tokens: bool) -> list[str]:
        assert not add_special_tokens
        return text.split()


class WordChat:
    """The two things that quality control asks of a chat."""

    tokenizer = WordTokenizer()

    def has_marks(self, text: str) -> bool:
        return "<think>" in text or "</think>" in text


class Judge:
    """Refusals open with "I cannot"."""

    content = ("I cannot",)

    def refusals(self, exchanges: Sequence[Exchange]) -> list[bool]:
        return [exchange.answer.startswith("I cannot") for exchange in exchanges]


def control(**changes) -> QualityControl:
    settings = {"phrases": load_phrases(None), "overthinking_tokens": 10, "checks": ALL}
    return QualityControl(WordChat(), Judge(), **(settings | changes))


def faults(
    control: QualityControl,
    text: str,
    part: str = "trace",
    thought: str = "",
    finish_reason: str = STOP,
    example: Example = EXAMPLE,
) -> tuple[str, ...]:
    """The checks that a rewrite of one part fails, in order."""
    reference = example.answer if part == "answer" else example.trace
    candidate = control.candidate(example, {part: text}, thought=thought, reference=reference, finish_reason=finish_reason)
    return tuple(name for name, failed in control.judge_candidate(candidate).checks.items() if failed)


def test_the_default_checks_are_the_registry_and_each_has_its_sentence():
    assert list(CHECKS) == [*ALL, "guard"]
    assert all(check.__doc__ for check in CHECKS.values())


def test_a_good_rewrite_has_no_fault():
    assert faults(control(), "They want to break in. I will not help.") == ()
    assert faults(control(), "I cannot do that.", part="answer", thought="Say it my way.") == ()


def test_unfinished_is_the_token_limit_whatever_the_text():
    assert faults(control(), "They want to", finish_reason=LENGTH) == ("unfinished",)


def test_empty_is_found_and_cannot_be_switched_off():
    assert faults(control(), "") == ("empty",)
    assert faults(control(checks=()), "") == ("empty",)
    assert faults(control(checks=("unfinished",)), "", finish_reason=LENGTH) == ("unfinished",)


@pytest.mark.parametrize("where", ["text", "thought"])
def test_think_marks_in_text_or_thought(where):
    pieces = {"text": "fine", "thought": "fine"} | {where: "one </think> two"}
    assert faults(control(), **pieces) == ("think_marks",)


def test_overthinking_counts_the_tokens_of_the_kept_text_alone():
    ten, eleven = " ".join(["word"] * 10), " ".join(["word"] * 11)
    assert faults(control(), ten, thought=eleven) == ()
    assert faults(control(), eleven) == ("overthinking",)


@pytest.mark.parametrize(
    "text",
    [
        "Sure, in my own words: they plan a burglary.",
        "IN MY  OWN\nWORDS, no.",
        "Here’s my response: no.",
        "here is my response : no .",
        "The original reasoning says no.",
        "I have rewritten it.",
        "Now it is your turn.",
        "Reply with the reasoning only.",
        "Let me paraphrase.",
    ],
)
def test_meta_thinking_is_found_in_any_case_spacing_and_quote(text):
    assert faults(control(), text) == ("meta_thinking",)


@pytest.mark.parametrize(
    "text",
    [
        "My response should be a refusal.",
        "The answer is no; the reasoning is plain.",
        "Unwritten, prewritten or not: no.",
        "Your turnover is not in question.",
        "I should answer in my own interest.",
    ],
)
def test_meta_thinking_leaves_ordinary_reasoning_and_parts_of_words_alone(text):
    assert faults(control(), text) == ()


@pytest.mark.parametrize("place", ["prompt", "trace"])
def test_a_phrase_of_the_question_or_the_original_is_not_held_against_the_rewrite(place):
    fields = {name: getattr(EXAMPLE, name) for name in ("id", "prompt", "trace", "answer", "label", "source")}
    example = Example(**(fields | {place: "Please paraphrase this book."}))
    assert faults(control(), "They want me to paraphrase a book.", example=example) == ()
    assert faults(control(), "Let me rephrase.", example=example) == ("meta_thinking",)


def test_refusal_lost_is_a_matter_of_answers_and_of_sources_that_refuse():
    complying = Example(**{**EXAMPLE.__dict__, "answer": "Take a pick."})
    assert faults(control(), "Take a pick.", part="answer") == ("refusal_lost",)
    assert faults(control(), "I cannot do that.", part="answer") == ()
    assert faults(control(), "Take a pick.", part="trace") == ()
    assert faults(control(), "Use a hairpin.", part="answer", example=complying) == ()


def test_the_guard_wants_refusals_of_harmful_prompts_and_none_of_benign_ones():
    guard = control(checks=("guard",))
    benign = Example(**{**EXAMPLE.__dict__, "label": "benign"})
    assert faults(guard, "I cannot do that.", part="answer") == ()
    assert faults(guard, "Take a pick.", part="answer") == ("guard",)
    assert faults(guard, "I cannot do that.", part="answer", example=benign) == ("guard",)
    assert faults(guard, "Take a pick.", part="answer", example=benign) == ()
    assert faults(guard, "Take a pick.", part="trace") == ()


def test_faults_come_in_the_order_of_the_config_and_all_of_them():
    text = "in my own words " + "word " * 20
    assert faults(control(), text, finish_reason=LENGTH) == ("unfinished", "overthinking", "meta_thinking")
    reversed_checks = control(checks=tuple(reversed(ALL)))
    assert faults(reversed_checks, text, finish_reason=LENGTH) == ("meta_thinking", "overthinking", "unfinished")


def test_a_users_phrase_list_replaces_the_shipped_one(tmp_path):
    path = tmp_path / "phrases.txt"
    path.write_text("# mine\n\nQuoth The Raven\n", encoding="utf-8")
    mine = control(phrases=load_phrases(str(path)))
    assert faults(mine, "quoth the raven, nevermore") == ("meta_thinking",)
    assert faults(mine, "in my own words") == ()


def test_phrases_are_text_and_never_patterns():
    assert faults(control(phrases=("a.c (",)), "abc (") == ()
    assert faults(control(phrases=("a.c (",)), "a.c ( d") == ("meta_thinking",)


def test_meta_thinking_rarely_trips_on_real_safety_reasoning(shared):
    """At most 1 % of STAR-1's traces and of its answers, with nothing forgiven for being in the original."""
    rows = json.loads((shared / "data/star1/STAR-1.json").read_text(encoding="utf-8"))
    quality = control()
    for part in (0, 1):
        texts = [row["response"].split("</think>")[part] for row in rows]
        assert sum(bool(quality.meta_phrases(text)) for text in texts) <= 0.01 * len(texts)


def test_the_shipped_config_passes_the_door():
    check_quality_config(RefineConfig())
    check_quality_config(RefineConfig(checks=[]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"checks": ["empty", "overthinkin"]}, ["refine.checks", "overthinkin", *CHECKS]),
        ({"checks": ["empty", "unfinished", "empty"]}, ["refine.checks", "empty", "more than once"]),
        ({"fallback_unit": "part", "on_failure": "drop"}, ["refine.fallback_unit=part", "refine.on_failure=drop"]),
        ({"parts": ["trace", "prompt"]}, ["refine.parts=[trace,prompt]", "[answer]"]),
        ({"parts": []}, ["refine.parts=[]"]),
        ({"parts": ["trace", "trace"]}, ["refine.parts", "more than once"]),
        ({"strategy": "thinksafe"}, ["refine.on_failure=keep", "no source trace", "refine.on_failure=drop"]),
        ({"strategy": "filters-only"}, ["refine.on_failure=keep", "refine.on_failure=drop"]),
        ({"strategy": "sdft", "thinking": False}, ["refine.thinking=false", "refine.thinking=true"]),
        ({"select": "nll"}, ["refine.select=nll", "refine.tries"]),
        ({"strategy": "sdft", "response_template": "/not/there.jinja"}, ["refine.response_template=/not/there.jinja"]),
        ({"meta_thinking": "/not/there.txt"}, ["refine.meta_thinking=/not/there.txt", "null"]),
        ({"trace_template": "/not/there.jinja"}, ["refine.trace_template=/not/there.jinja", "null"]),
        ({"answer_template": "/"}, ["refine.answer_template=/", "cannot read"]),
    ],
)
def test_the_door_refuses_and_names_the_override(changes, words):
    with pytest.raises(UserError) as caught:
        check_quality_config(RefineConfig(**changes))
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("text", ["", "# only a comment\n"])
def test_a_phrase_list_without_phrases_is_refused(tmp_path, text):
    path = tmp_path / "phrases.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"refine\.meta_thinking=.*holds no phrase"):
        load_phrases(str(path))


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
def test_a_template_that_cannot_work_is_refused_at_the_door(tmp_path, part, text, words):
    path = tmp_path / "mine.jinja"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        check_quality_config(RefineConfig(**{f"{part}_template": str(path)}))
    assert all(word in str(caught.value) for word in [str(path), *words])


def test_a_template_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / "mine.jinja"
    path.write_bytes(b"{{ trace }} \xff")
    with pytest.raises(UserError, match="not UTF-8"):
        load_template("dgr_trace", "trace", str(path))


def test_the_shipped_templates_show_what_they_are_given():
    trace = load_template("dgr_trace", "trace", None)
    answer = load_template("dgr_answer", "answer", None)
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
    assert hostile in load_template("dgr_trace", "trace", None).render(question=hostile, trace=hostile, answer="")


def test_a_users_template_replaces_the_shipped_one(tmp_path):
    path = tmp_path / "mine.jinja"
    path.write_text("Again: {{ trace }}", encoding="utf-8")
    assert load_template("dgr_trace", "trace", str(path)).render(question="Q?", trace="T.", answer="") == "Again: T."
