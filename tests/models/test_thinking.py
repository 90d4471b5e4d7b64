"""The style of a tokenizer, and what models write, parsed into trace and answer."""

import re

import pytest

from dgr_lightning.config.keys import keys
from dgr_lightning.errors import UserError
from dgr_lightning.models.chat import Chat
from dgr_lightning.models.thinking import STYLES, Parsed, check_marks


def test_the_key_takes_every_style():
    assert set(keys()["model.chat_style"].facts["choices"]) == set(STYLES)


def test_tokens_in_the_vocabulary_are_evidence(folders, micro):
    for name in ("r1-distill-qwen", "r1-distill-llama", "qwen3"):
        assert Chat.load(folders[name]).style == "think"
    assert micro.chat.style == "think"


@pytest.mark.parametrize(
    ("style", "marks", "message"),
    [
        ("marks", None, "model.chat_style=marks: which ones?"),
        ("think", ["<a>", "</a>"], "model.think_marks with model.chat_style=think"),
        ("auto", ["<a>", "</a>"], "model.think_marks with model.chat_style=auto"),
        ("marks", ["<a>"], "two different texts"),
        ("marks", ["<a>", "<a>"], "two different texts"),
        ("marks", ["<a>", ""], "two different texts"),
        ("marks", ["<a>\n", "</a>"], "without white space at their ends"),
    ],
)
def test_marks_of_ones_own_belong_to_their_style(style, marks, message):
    with pytest.raises(UserError, match=re.escape(message)):
        check_marks(style, marks)


def test_unfinished_and_malformed_outputs(chats, micro):
    r1, qwen3, s1 = chats["r1-distill-qwen"], chats["qwen3"], chats["qwen2.5"]
    assert r1.parse("still thinking") == Parsed("still thinking", None)
    assert r1.parse("hm\n</think>\n\n") == Parsed("hm", "")
    assert r1.parse("\n</think>\n\nNo.") == Parsed("", "No.")
    assert r1.parse("hm</think>No.</think>Yes.") == Parsed("hm", "No.</think>Yes.")
    assert qwen3.parse("<think>\nstill thinking") == Parsed("still thinking", None)
    assert qwen3.parse("straight to the answer") == Parsed(None, None)
    assert qwen3.parse(" straight to the answer\n", finished=True) == Parsed(None, "straight to the answer")
    assert s1.parse("No.", finished=True) == Parsed(None, "No.")
    assert r1.parse("still thinking", finished=True) == Parsed("still thinking", None), "its template opened a thought"
    for opened in ("<think>\nhm", "No. <think> hm"):
        assert qwen3.parse(opened, finished=True).answer is None
    assert qwen3.parse("hm\n</think>\n\nNo.") == Parsed("hm", "No.")
    assert s1.parse("<|im_start|>think\nhm\n<|im_start|>answer\nNo.") == Parsed("hm", "No.")
    assert s1.parse("<|im_start|>think\nhm") == Parsed("hm", None)
    assert micro.chat.parse("first mix </think> I cannot help with that .") == Parsed("first mix", "I cannot help with that .")
    # A second opening is part of the trace, where a check can see it.
    assert r1.has_marks(r1.parse("<think>\nhm\n</think>\n\nNo.").trace or "")
    assert [chat.parse(" No.\n", thinking=False) for chat in (r1, qwen3, s1)] == [Parsed("", "No.")] * 3
