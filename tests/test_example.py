import json
from dataclasses import asdict

import pytest

from dgr_lightning.errors import UserError
from dgr_lightning.example import Example, ExampleFile, RefinedExample, read_refined
from dgr_lightning.files import write_jsonl

EXAMPLES = [Example(f"x-{index}", f"prompt {index} ü\u2028", "trace" * index, "answer", "harmful", "x") for index in range(5)]


def test_a_file_of_examples_is_a_sequence_in_its_order(tmp_path):
    write_jsonl(tmp_path / "examples.jsonl", [asdict(example) for example in EXAMPLES])
    examples = ExampleFile(tmp_path / "examples.jsonl")
    assert examples.ids == [example.id for example in EXAMPLES] and len(examples) == 5
    assert list(examples) == EXAMPLES
    assert [examples[3], examples[-1], examples[0]] == [EXAMPLES[3], EXAMPLES[4], EXAMPLES[0]]
    assert examples[1:4] == EXAMPLES[1:4] and examples[::-2] == EXAMPLES[::-2]
    with pytest.raises(IndexError):
        examples[5]


def test_an_example_file_takes_refined_examples_too(tmp_path):
    refined = RefinedExample.of(EXAMPLES[1], refined=True, trace="rewritten")
    write_jsonl(tmp_path / "refined.jsonl", [refined])
    (example,) = ExampleFile(tmp_path / "refined.jsonl")
    assert type(example) is Example and example.trace == "rewritten"


def test_refinement_changes_texts_and_keeps_the_rest(tmp_path):
    kept = RefinedExample.of(EXAMPLES[2], reason="unfinished")
    rewritten = RefinedExample.of(EXAMPLES[2], refined=True, trace="new", answer="no")
    assert (kept.trace, kept.refined, kept.reason) == (EXAMPLES[2].trace, False, "unfinished")
    assert rewritten == RefinedExample("x-2", EXAMPLES[2].prompt, "new", "no", "harmful", "x", True, None)
    write_jsonl(tmp_path / "refined.jsonl", [kept, rewritten])
    assert read_refined(tmp_path / "refined.jsonl") == [kept, rewritten]
    keys = ["id", "prompt", "trace", "answer", "label", "source", "refined", "reason"]
    assert list(json.loads((tmp_path / "refined.jsonl").read_text().split("\n")[0])) == keys


@pytest.mark.parametrize("line", ["{", "[]", "3", '{"no": "id"}', "[" * 200_000], ids=range(5))
def test_a_damaged_file_of_examples_is_named(tmp_path, line):
    (tmp_path / "rows.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=r"rows\.jsonl, line 1: damaged"):
        ExampleFile(tmp_path / "rows.jsonl")
    with pytest.raises(UserError, match=r"rows\.jsonl"):
        read_refined(tmp_path / "rows.jsonl")
