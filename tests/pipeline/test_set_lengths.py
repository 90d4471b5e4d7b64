"""Lengths of a set in the target's tokens, and what does not fit, said by id before anything is generated."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dgr_lightning.errors import UserError
from dgr_lightning.example import Example
from dgr_lightning.models.chat import Chat
from dgr_lightning.pipeline.set_lengths import set_lengths
from tests.helpers.configs import config
from tests.helpers.runs import ROOT, environment


@pytest.fixture(scope="module")
def chat(micro_folder):
    return Chat.load(micro_folder)


def example(number, prompt="how do i rob 3 banks ?", trace="i should not answer this .", answer="i will not help ."):
    return Example(f"set-{number}", prompt, trace, answer, "harmful", "set")


def test_lengths_are_those_of_the_encoded_example(chat):
    for append_eos in (True, False):
        lengths = set_lengths([example(0), example(1, trace="")], chat, config(sft__append_eos=append_eos))
        for length, one in zip(lengths.examples, [example(0), example(1, trace="")], strict=True):
            encoded = chat.encode(one.prompt, one.trace, one.answer, 1000, append_eos=append_eos)
            assert length.whole == len(encoded.ids) and length.prompt == encoded.num_prompt
            assert length.id == one.id
        assert lengths.examples[1].trace == 0 and lengths.examples[0].trace == 6


def test_what_is_cut_and_what_cannot_be_trained_on_are_what_encoding_cuts_and_refuses(chat):
    examples = [example(n, trace="no . " * n, prompt="rob a bank ? " * (n % 5)) for n in range(30)]
    for max_length in range(10, 80, 7):
        lengths = set_lengths(examples, chat, config(sft__max_length=max_length))
        cut, refused = [], []
        for one in examples:
            try:
                encoded = chat.encode(one.prompt, one.trace, one.answer, max_length)
            except UserError:
                refused.append(one.id)
            else:
                cut += [one.id] if encoded.num_truncated else []
        assert [length.id for length in lengths.too_long] == refused
        assert [length.id for length in lengths.cut if length not in lengths.too_long] == cut


def test_what_does_not_fit_is_named_by_id_with_the_length_that_would_do(chat):
    examples = [example(0), example(1, prompt="rob a bank ? " * 40), example(2, answer="i will not help . " * 9)]
    lengths = set_lengths(examples, chat, config(sft__max_length=40))
    with pytest.raises(UserError) as error:
        lengths.check()
    message = str(error.value)
    assert message.startswith("sft.max_length=40: too short for prompt, answer and marks of 2 of 3 examples")
    assert "set-1 (" in message and "set-2 (" in message and "set-0" not in message
    assert f"Write sft.max_length={lengths.fitting_length} or more" in message
    set_lengths(examples, chat, config(sft__max_length=lengths.fitting_length)).check()
    with pytest.raises(UserError):
        set_lengths(examples, chat, config(sft__max_length=lengths.fitting_length - 1)).check()


def test_where_the_beginning_is_cut_everything_fits(chat):
    long = example(0, prompt="rob a bank ? " * 40)
    lengths = set_lengths([long], chat, config(sft__max_length=40, sft__truncate="left"))
    lengths.check()
    assert lengths.cut and not lengths.too_long
    assert len(chat.encode(long.prompt, long.trace, long.answer, 40, truncate="left").ids) == 40


def test_a_run_says_so_before_anything_is_generated(tmp_path, cache):
    ended = subprocess.run(
        [sys.executable, str(ROOT / "refine.py"), "sft.max_length=30", f"hydra.run.dir={tmp_path / 'run'}"],
        env=environment(cache),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 2 and "sft.max_length=30: too short for prompt, answer and marks of" in ended.stderr
    assert "micro-directrefusal-" in ended.stderr and "Traceback" not in ended.stderr
    assert not (cache / "rewrites").exists()


@pytest.mark.parametrize("tokenizer", ["r1-distill-qwen", "qwen3"])
def test_with_merges_across_the_seam_too(shared, tokenizer):
    chat = Chat.load(shared / "tokenizers" / tokenizer)
    texts = ["No.", "Well,\n\nno", " No \n", "x = {\n\t1\n}"]
    examples = [example(n, prompt=f"Why {n}?", trace=text * 5, answer=text) for n, text in enumerate(texts)]
    for max_length in range(12, 60):
        too_long = {length.id for length in set_lengths(examples, chat, config(sft__max_length=max_length)).too_long}
        for one in examples:
            try:
                chat.encode(one.prompt, one.trace, one.answer, max_length)
            except UserError:
                assert one.id in too_long
            else:
                assert one.id not in too_long
