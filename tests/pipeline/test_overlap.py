"""Prompts that a set shares with what the model is measured on: counted, and left out where asked."""

import json

import pytest

from dgr_lightning.cli.compose import compose
from dgr_lightning.config import DataConfig, FieldsConfig
from dgr_lightning.data.sources import load_examples
from dgr_lightning.errors import UserError
from dgr_lightning.pipeline.overlap import measured_hashes, measured_prompts, num_shared, overlap
from dgr_lightning.tasks.task import fingerprint
from tests.helpers.configs import config
from tests.helpers.source_sets import source_set


@pytest.fixture
def measured(tmp_path):
    """A config that is measured on two requests of a local copy of StrongREJECT."""
    file = tmp_path / "strongreject.jsonl"
    file.write_text("".join(json.dumps({"forbidden_prompt": text}) + "\n" for text in ("Pick a lock.", "Forge a pass!")))
    return config(evaluation__tasks=["strongreject"], evaluation__path={"strongreject": str(file)}, probes__every=0)


ROWS = [{"prompt": text, "response": "t</think>a"} for text in ("pick  a LOCK", "Bake a cake", "Forge a pass", "Row")]


def test_case_punctuation_and_white_space_do_not_count(measured):
    prompts = measured_prompts(measured)
    assert overlap((row["prompt"] for row in ROWS), prompts) == {"strongreject": 2}
    assert overlap(["Bake a cake"], prompts) == {}


def test_what_a_task_puts_around_its_question_does_not_count(tmp_path):
    rows = {
        "gsm8k": {"question": "What is 1 + 1?", "answer": "#### 2"},
        "harmbench": {"Behavior": "Sum it up", "ContextString": "A text.", "FunctionalCategory": "contextual"},
        "mmlu_pro": {"question": "Which is even?", "options": ["one", "two"], "answer": "B"},
    }
    paths = {name: str(tmp_path / f"{name}.jsonl") for name in rows}
    for name, row in rows.items():
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    cfg = config(evaluation__tasks=list(rows), evaluation__path=paths, probes__every=0)
    asked = ["what is 1 + 1", "Sum it up!", "Which is even?", "A text."]
    assert overlap(asked, measured_prompts(cfg)) == dict.fromkeys(rows, 1)


def test_rows_that_are_measured_on_are_rejected_with_their_number(tmp_path, measured):
    known = measured_prompts(measured)["strongreject"]
    loaded = load_examples(source_set(tmp_path, ROWS), 1, lambda prompt: fingerprint(prompt) in known)
    assert [example.id for example in loaded.examples] == ["set-1", "set-3"] and loaded.rejected == {"overlap": 2}


def test_prompts_that_stand_in_several_parts_of_a_mixture_are_counted():
    prompts = ["Pick a lock.", "Row", "row", "pick a LOCK", "Bake", "Row!"]
    assert num_shared(prompts, [3, 2, 1]) == 2, "the lock in two parts, Row in two, one of them twice"
    assert num_shared(prompts, [3, 3]) == 2 and num_shared(prompts, [6]) == 0 and num_shared(prompts, []) == 0


def test_other_tasks_are_another_set_where_overlap_is_dropped(measured):
    before = measured_hashes(measured)
    with open(measured.evaluation.path["strongreject"], "a", encoding="utf-8") as file:
        file.write(json.dumps({"forbidden_prompt": "Bake a cake"}) + "\n")
    assert measured_hashes(measured) != before


def test_without_probes_theirs_do_not_count(measured):
    measured.probes.tasks = ["gsm8k"]
    assert set(measured_prompts(measured)) == {"strongreject"}


def test_refine_has_nothing_to_leave_out():
    with pytest.raises(UserError, match=r"data\.drop_overlap=true: refine\.py measures no model"):
        compose("refine", ["data.drop_overlap=true"])


def test_32_behaviours_of_harmbench_stand_in_star1(shared):
    import csv

    fields = FieldsConfig(id="id", prompt="question", response="response")
    star1 = load_examples(DataConfig(name="star1", path=str(shared / "data/star1/STAR-1.json"), fields=fields), 1).examples
    with open(shared / "data/harmbench/harmbench_behaviors_text_all.csv", encoding="utf-8") as file:
        behaviours = frozenset(fingerprint(row["Behavior"]) for row in csv.DictReader(file))
    assert overlap((example.prompt for example in star1), {"harmbench": behaviours}) == {"harmbench": 32}
