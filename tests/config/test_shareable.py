"""Values that give a place, a person or a secret away are withheld; names are not."""

import pytest

from dgr_lightning.config.shareable import WITHHELD, shareable

TELLING = [
    "/data/rows.jsonl",
    "/",
    "~",
    "~me/rows.csv",
    "./model",
    "../model",
    "C:\\Users\\me",
    "D:/data",
    "\\\\server\\share",
    "rows of /home/me/set.jsonl",
    "file=/srv/x",
    "http://127.0.0.1:8000/v1",
    "ray://head:10001",
    "head:6379",
    "localhost",
    "10.1.2.3",
    "[fe80::1]",
    "me@example.org",
    "hf_abcdefghijklmnopqrst",
    "sk-proj-abcdefghijkl",
    "two\nlines",
    "long " * 50,
]
NAMES = [
    "",
    "r1-distill-7b",
    "owner/name",
    "</think>",
    "[/THINK]",
    "package.module:Name",
    "probe/micro-short/accuracy",
    "16-31",
    "33%-67%",
    "0.8 owner/one (harmful), 0.2 owner/two (benign)",
    "4.57.1",
    "vanilla_harmful",
    "a set, & more",
    "größe",
]


@pytest.mark.parametrize("text", TELLING)
def test_what_gives_a_place_or_a_secret_away_is_withheld(text):
    assert shareable(text) == WITHHELD
    assert shareable({"a": [text, 1], text: None}) == {"a": [WITHHELD, 1], WITHHELD: None}


@pytest.mark.parametrize("text", NAMES)
def test_names_and_marks_are_handed_on(text):
    assert shareable(text) == text


def test_what_is_no_text_stays_as_it_is():
    assert shareable({"a": 1, "b": None, "c": [0.5, True]}) == {"a": 1, "b": None, "c": [0.5, True]}
