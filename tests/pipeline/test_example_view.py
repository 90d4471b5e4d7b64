"""The first example on the screen, token by token."""

import pytest
from rich.console import Console

from dgr_lightning.example import Example
from dgr_lightning.pipeline.example_view import example_view
from tests.helpers.chats import Micro, word_chat


@pytest.fixture(scope="module")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Micro:
    return word_chat(tmp_path_factory.mktemp("micro"))


def test_an_example_is_shown_token_by_token_with_its_target_marked(micro):
    example = Example("x-1", "bake a bread ?", "first mix", "I cannot help with that .", "harmful", "x")
    console = Console(width=200, record=True, file=open("/dev/null", "w"), color_system="truecolor")  # noqa: SIM115
    console.print(example_view(micro.chat, example))
    styled, text = console.export_text(styles=True, clear=False), console.export_text()
    assert "prompt, not trained on: 7 tokens" in text
    assert "target, trained on: 10 tokens" in text
    assert "<|user|>│bake│a│bread│?│<|assistant|>│<think>│" in text
    assert "first│mix│</think>│I│cannot│help│with│that│.│<|end|>│" in text
    assert "\x1b[1;32mcannot" in styled
    assert "\x1b[1;32mbake" not in styled


def test_hidden_text_is_counted_and_control_tokens_are_shown(micro):
    example = Example("x-1", "bake a bread ?", "first mix", "I cannot help with that .", "harmful", "x")
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(example_view(micro.chat, example, hide_text=True))
    text = console.export_text()
    assert "<|user|>│ 4 of text │<|assistant|>│<think>│" in text and " 2 of text │</think>│ 6 of text │<|end|>│" in text
    assert "bake" not in text and "mix" not in text


def test_a_long_example_is_shown_without_its_middle_and_markup_is_text(micro):
    example = Example("x-1", "[bold] a", "a " * 400, "4", "harmful", "x")
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(example_view(micro.chat, example, num_shown=20))
    text = console.export_text()
    assert "… 383 more …" in text.replace("\n", "")
    assert text.count("a│") < 40
