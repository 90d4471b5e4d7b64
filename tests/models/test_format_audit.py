"""The audit of a chat format: each fault that published training code has had is found, and a sound format passes."""

from __future__ import annotations

import pytest

from dgr_lightning.errors import UserError
from dgr_lightning.example import Example
from dgr_lightning.models import format_audit
from dgr_lightning.models.chat import Chat

EXAMPLE = Example("set-1", "how do I draw a cat ?", "I consider . safe .", "sure ! prepare pencil .", "benign", "set")


@pytest.fixture
def chat(micro_folder):
    return Chat.load(micro_folder)


def failed(chat, example=EXAMPLE, **options):
    return list(format_audit.failed_demands(chat, example, **options))


def replaced(chat, monkeypatch, change):
    """The chat with targets that training code got wrong."""
    sound = chat.target_ids
    monkeypatch.setattr(chat, "target_ids", lambda trace, answer: change(sound, trace, answer))
    return chat


def test_a_sound_format_fails_nothing(chat):
    assert failed(chat) == [] and failed(chat, append_eos=False) == []
    assert format_audit.demands(chat)[1] == format_audit.ONE_THOUGHT
    assert format_audit.ENDS not in format_audit.demands(chat, append_eos=False)


def test_an_empty_trace_is_one_thought(chat):
    assert failed(chat, Example("set-1", "how ?", "", "no .", "harmful", "set")) == []


def test_a_target_that_drops_the_trace(chat, monkeypatch):
    broken = replaced(chat, monkeypatch, lambda sound, trace, answer: sound("", answer))
    assert failed(broken) == [format_audit.COMES_BACK]


def test_a_block_that_is_doubled(chat, monkeypatch):
    opening = chat.tokenizer.convert_tokens_to_ids("<think>")
    broken = replaced(chat, monkeypatch, lambda sound, *texts: [opening, *sound(*texts)])
    assert format_audit.ONE_THOUGHT in failed(broken)


def test_a_target_without_the_end_token(chat, monkeypatch):
    broken = replaced(chat, monkeypatch, lambda sound, *texts: sound(*texts)[:-1])
    assert failed(broken) == [format_audit.ENDS] and failed(broken, append_eos=False) == []


def test_a_prompt_that_is_not_the_templates(chat, monkeypatch):
    monkeypatch.setattr(chat, "template_ids", lambda prompt: [*chat.prompt_ids(prompt), 0])
    assert failed(chat) == [format_audit.SAME_PROMPT]


def test_a_prompt_that_spells_a_control_token_is_text_and_no_fault(chat):
    spelled = Example("set-1", "what is <think> ?", "I consider .", "sure !", "benign", "set")
    assert chat.prompt_ids(spelled.prompt) != chat.template_ids(spelled.prompt) and failed(chat, spelled) == []


def test_a_row_that_spells_a_mark_that_is_a_token_is_plain_characters_and_no_fault(shared, tmp_path):
    import shutil

    folder = shutil.copytree(shared / "tokenizers" / "qwen2.5", tmp_path / "qwen2.5")
    for chat in (Chat.load(folder, "s1"), Chat.load(folder, "marks", marks=["<tool_call>", "</tool_call>"])):
        opening, closing = chat.marks
        text = f"First {opening} then {closing} at the end."
        assert failed(chat, Example("set-1", "How?", text, text, "benign", "set")) == []


def test_marks_that_the_vocabulary_cannot_write_are_refused(micro_folder):
    with pytest.raises(UserError, match=r"cannot write \[THINK\]: it is not in its vocabulary"):
        Chat.load(micro_folder, "marks", marks=["[THINK]", "[/THINK]"])


def test_without_thinking_all_of_the_target_is_the_answer(shared, tmp_path):
    import shutil

    folder = shutil.copytree(shared / "tokenizers" / "qwen2.5", tmp_path / "qwen2.5")
    chat = Chat.load(folder, "none")
    assert format_audit.demands(chat)[1] == format_audit.NO_THOUGHT
    assert failed(chat, Example("set-1", "How do I draw a cat?", "", "Take a pencil.\n\nBegin.", "benign", "set")) == []


@pytest.mark.parametrize("tokenizer", ["r1-distill-qwen", "qwen3"])
def test_real_tokenizers_pass_with_code_line_breaks_and_other_scripts(shared, tokenizer):
    chat = Chat.load(shared / "tokenizers" / tokenizer)
    texts = ["def f():\n\treturn 1\n\n\n# ünïcödé 你好 🦙", "  indented\n  twice", "1,000 ≠ 1.000\\frac{1}{2}"]
    for number, text in enumerate(texts):
        assert failed(chat, Example(f"set-{number}", text, text, text, "benign", "set")) == []
