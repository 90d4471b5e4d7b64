"""Quality control: each check on text that it must catch and text that it must let pass."""

from __future__ import annotations

import pytest

from dgr_lightning.config import RefineConfig
from dgr_lightning.engines.engine import LENGTH, STOP
from dgr_lightning.example import Example
from dgr_lightning.refinement.meta_thinking import MetaThinking
from dgr_lightning.refinement.quality import CHECKS, QualityControl
from tests.helpers.scripted import Judge

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


def control(**changes) -> QualityControl:
    settings = {"meta": MetaThinking.load(None), "overthinking_tokens": 10, "checks": ALL}
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
        "The answer is no; the reason is plain.",
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
    assert faults(control(), "I have reworded it.", example=example) == ("meta_thinking",)


def test_refusal_lost_is_a_matter_of_answers_and_of_sources_that_refuse():
    complying = Example(**{**EXAMPLE.__dict__, "answer": "Take a pick."})
    assert faults(control(), "Take a pick.", part="answer") == ("refusal_lost",)
    assert faults(control(), "I cannot do that.", part="answer") == ()
    assert faults(control(), "Take a pick.", part="trace") == ()
    assert faults(control(), "Use a hairpin.", part="answer", example=complying) == ()


@pytest.mark.parametrize("label", ["benign", "safe_completion"])
def test_refusal_gained_is_a_matter_of_prompts_that_should_be_helped_with(label):
    helped = Example(**{**EXAMPLE.__dict__, "answer": "Take a pick.", "label": label})
    assert faults(control(), "I cannot do that.", part="answer", example=helped) == ("refusal_gained",)
    assert faults(control(), "Use a hairpin.", part="answer", example=helped) == ()
    assert faults(control(), "I cannot do that.", part="trace", example=helped) == ()
    refused = Example(**{**EXAMPLE.__dict__, "label": label})
    assert faults(control(), "I cannot do that.", part="answer", example=refused) == ()
    harmful = Example(**{**EXAMPLE.__dict__, "answer": "Take a pick."})
    assert faults(control(), "I cannot do that.", part="answer", example=harmful) == ()


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
