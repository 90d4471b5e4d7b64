"""Meta-thinking: what the patterns find, what they let pass, and lists that a user may write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dgr_lightning.errors import UserError
from dgr_lightning.refinement.meta_thinking import MetaThinking, check_patterns
from dgr_lightning.text_files import read_lines

SENTENCES = Path(__file__).parent / "meta_sentences"


@pytest.fixture(scope="module")
def meta():
    return MetaThinking.load(None)


def share_found(meta, name):
    sentences = read_lines(name, SENTENCES / f"{name}.txt")
    return sum(bool(meta.found(sentence)) for sentence in sentences) / len(sentences), len(sentences)


def test_nine_in_ten_typical_meta_sentences_are_found_also_of_those_no_pattern_was_written_on(meta):
    known, held_out = share_found(meta, "known"), share_found(meta, "held_out")
    assert known[0] >= 0.95 and known[1] == 240
    assert held_out[0] >= 0.9 and held_out[1] == 60


def test_ordinary_sentences_that_use_the_same_words_pass(meta):
    found, num_sentences = share_found(meta, "ordinary")
    assert found <= 0.1 and num_sentences == 80


@pytest.mark.parametrize(
    "sentence",
    [
        "Here's a more natural version",
        "The original text says that this is illegal.",
        "The reasoning explains that stalking is a crime.",
        "So the reference says that I should refuse.",
        "According to the reference, the train leaves at noon.",
        "The given reasoning is about consent.",
    ],
)
def test_the_kinds_that_phrases_alone_let_through_are_found(meta, sentence):
    assert meta.found(sentence)


@pytest.mark.parametrize(
    ("file", "prompt", "texts", "most"),
    [
        ("star1/STAR-1.json", "question", ["response"], 0.01),
        ("gsm8k/test.jsonl", "question", ["answer"], 0.01),
        ("math500/test.jsonl", "problem", ["solution"], 0.01),
    ],
)
def test_at_most_one_in_a_hundred_real_traces_is_flagged(meta, shared, file, prompt, texts, most):
    text = (shared / "data" / file).read_text(encoding="utf-8")
    rows = json.loads(text) if file.endswith(".json") else [json.loads(line) for line in text.splitlines()]
    flagged = [row for row in rows if any(meta.found_beyond(row[name], row[prompt]) for name in texts)]
    assert len(flagged) <= most * len(rows)


@pytest.mark.parametrize(
    ("text", "known", "beyond"),
    [
        ("They want me to paraphrase a page.", "Paraphrase this page.", set()),
        ("I need to rephrase this.", "Please rewrite the letter.", {"need to rephrase"}),
        ("In my own words: no.", "Tell me in my own words.", set()),
        ("In my own words: no.", "My words are my own.", {"in my own words"}),
        ("The reasoning explains that.", "What is reasoning?", {"the reasoning explains"}),
    ],
)
def test_what_the_question_or_the_source_speaks_of_is_forgiven(meta, text, known, beyond):
    assert beyond <= meta.found_beyond(text, known) and bool(meta.found_beyond(text, known)) == bool(beyond)


def test_a_list_holds_phrases_patterns_and_names(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("# mine\n\n{text} = trace|answer\nSo To Say\n/the (new|old) {text}s?/\n", encoding="utf-8")
    meta = MetaThinking.load(str(file))
    assert meta.found("so\nto  say, THE OLD traces and the answer") == {"so to say", "the old traces"}
    assert meta.found("the newt race is not so to saying") == set()


def test_a_pattern_within_the_match_of_another_is_found_too(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("here is the old answer\nthe old answer\n", encoding="utf-8")
    assert MetaThinking.load(str(file)).found("Here is the old answer.") == {"here is the old answer", "the old answer"}


def test_a_phrase_means_its_characters_and_a_typographic_apostrophe_a_plain_one(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("what? (really)\nhere’s mine\n", encoding="utf-8")
    meta = MetaThinking.load(str(file))
    assert meta.found("What? (really)") and not meta.found("wha really") and meta.found("HERE'S mine")


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        (r"/\S+ banana/", "a Yellow banana", {"yellow banana"}),
        (r"/Here\W+it is/", "here, it is", {"here, it is"}),
        (r"/(\w+) \1 thing/", "the same same thing", {"same same thing"}),
        (r"/(?P<a>X)y(?P=a)/", "xyx", {"xyx"}),
        (r"/[A-C x]+D/", "a bx cd", {"a bx cd"}),
        (r"/[^a b]c/", "+c", {"+c"}),
    ],
)
def test_a_pattern_keeps_its_escapes_groups_and_sets(tmp_path, pattern, text, found):
    file = tmp_path / "list.txt"
    file.write_text(f"/(foo|bar) one/\n{pattern}\n", encoding="utf-8")
    assert MetaThinking.load(str(file)).found(text) == found


def test_every_shipped_announcement_can_match(meta):
    for text in ("Here is my take: I would not.", "Here is one draft. I refuse.", "Here's a clearer version of it:"):
        assert meta.found(text)


@pytest.mark.parametrize("pattern", ["/(a+)+$x/", r"/(\w+\s?)*zzz/"])
def test_a_pattern_that_takes_exponential_time_is_refused_by_name(tmp_path, pattern):
    file = tmp_path / "list.txt"
    file.write_text(f"fine\n{pattern}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"refine\.meta_thinking=.*takes more than 2 s on a short text"):
        check_patterns(str(file))


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("# nothing\n", ["holds no phrase and no pattern", "null"]),
        ("/the (old/\n", ["/the (old/", "not a regular expression"]),
        ("/the {text}/\n", ["{text}", "= one|another"]),
        ("/(the)?/\n", ["/(the)?/", "no text"]),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(tmp_path, text, pieces):
    file = tmp_path / "list.txt"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        MetaThinking.load(str(file))
    assert all(piece in str(error.value) for piece in [f"refine.meta_thinking={file}", *pieces])
