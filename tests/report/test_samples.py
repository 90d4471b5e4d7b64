"""One output taken apart: trace and answer, what it counts as, and what a reader may look for."""

import pytest
import yaml

from dgr_lightning.files import write_jsonl, write_text
from dgr_lightning.models.thinking import FORMATS
from dgr_lightning.report.samples import shown, sides_of

THINK, S1 = FORMATS["think"], FORMATS["s1"]
ROW = {"id": "p-0", "sample": 0, "kind": "reasoning", "prompt": "how much ?", "num_tokens": 1234, "finish_reason": "stop"}


def row(output, **changes):
    return ROW | {"output": output, "correct": True} | changes


@pytest.mark.parametrize(
    ("formats", "output", "parts"),
    [
        ([THINK], "one two\n</think>\n\n5", ("one two", "5")),
        ([THINK], "<think>\none\n</think>\n\n5", ("one", "5")),
        ([THINK], "one two three", ("one two three", None)),
        ([THINK], "</think>\n\n5", (None, "5")),
        ([THINK], "one </think>", ("one", "")),
        ([THINK, S1], "one\n<|im_start|>answer\n5", ("one", "5")),
        ([FORMATS["none"]], " 5 ", (None, "5")),
    ],
)
def test_an_output_is_trace_and_answer(formats, output, parts):
    found = shown(row(output), formats)
    assert (found.trace, found.answer) == parts


def test_what_an_output_counts_as_is_said_in_words():
    graded = shown(row("a </think> b", outcome="no_answer", boxed=None, final=None, grader="maths@1", correct=False), [THINK])
    assert (
        graded.verdict == "wrong" and "maths@1: no answer" in graded.facts and "1,234 tokens, ended by itself" in graded.facts
    )
    boxless = shown(row("a </think> 5", outcome="right", boxed=False, final="5", grader="maths@1"), [THINK])
    assert boxless.verdict == "right" and "maths@1: right, final answer 5" in boxless.facts and boxless.flags == ["no box"]


def test_an_output_that_ended_badly_is_flagged():
    assert shown(row("a", finish_reason="length"), [THINK]).flags == ["cut off", "no answer"]
    assert shown(row("</think> b"), [THINK]).flags == ["no thinking"]


def test_both_kinds_of_subjects_are_found_and_rows_of_both_are_read(tmp_path):
    write_text(tmp_path / "config.yaml", yaml.safe_dump({"model": {"chat_style": "s1"}}))
    assert sides_of(tmp_path) == []
    write_jsonl(tmp_path / "evaluation" / "base" / "gsm8k.jsonl", [row("a")])
    (alone,) = sides_of(tmp_path)
    assert alone.label == "model" and alone.tasks == ["gsm8k"] and alone.formats == [S1]
    write_jsonl(tmp_path / "evaluation" / "tuned" / "xstest.jsonl", [row("b"), row("c")])
    base, tuned = sides_of(tmp_path)
    assert (base.label, tuned.label) == ("base", "tuned") and tuned.tasks == ["xstest"]
    assert [one["output"] for one in tuned.rows("xstest")] == ["b", "c"] and list(tuned.rows("gsm8k")) == []
