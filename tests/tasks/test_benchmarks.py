"""Published copies of the benchmarks as they differ: columns, labels, parts, and the rows that are none."""

import json

import pytest

from dgr_lightning.errors import UserError
from dgr_lightning.hashes import content_hash
from dgr_lightning.tasks import loader
from dgr_lightning.tasks.loader import load_problems, task_hash
from dgr_lightning.tasks.registry import TASKS


@pytest.fixture
def read(tmp_path):
    """Reads rows as a local copy of a task."""

    def read(name, *rows):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return load_problems(name, path=str(path))

    return read


def prompts(problems):
    return [problem.prompt for problem in problems]


@pytest.mark.parametrize("answer", ["025", "25", 25, 25.0])
def test_aime_has_one_gold_however_a_copy_writes_it(read, answer):
    for name, column, key in (
        ("aime24", "problem", "answer"),
        ("aime25", "question", "answer"),
        ("aime24", "Problem", "Answer"),
    ):
        (problem,) = read(name, {column: "How many?", key: answer})
        assert problem.gold == "25" and problem.prompt.startswith("How many?\n\nPlease reason")


@pytest.mark.parametrize(
    ("answer", "gold"), [("336^\\circ", "336^\\circ"), ("000", "0"), (0, "0"), ("9" * 5000, "9" * 5000), (0.5, "0.5")]
)
def test_an_answer_that_is_no_number_of_three_digits_stays(read, answer, gold):
    assert read("aime25", {"problem": "How many?", "answer": answer})[0].gold == gold


WRONG = {"Incorrect Answer 1": "a", "Incorrect Answer 2": "b ", "Incorrect Answer 3": 3}
GPQA = {"Question": " Q?\n", "Correct Answer": "r", **WRONG}


def test_gpqa_shows_four_options_and_its_gold_is_the_letter_of_the_right_one(read):
    (problem,) = read("gpqa", GPQA | {"Record ID": "recX", "High-level domain": "Physics"})
    lines = problem.prompt.splitlines()
    assert (problem.id, problem.category, problem.question) == ("gpqa-recX", "Physics", "Q?")
    assert f"{problem.gold}) r" in lines and {line[3:] for line in lines[-4:]} == {"r", "a", "b", "3"}
    assert [line[0] for line in lines[-4:]] == list("ABCD")
    with pytest.raises(UserError, match="no column 'Incorrect Answer 2'"):
        read("gpqa", {key: value for key, value in GPQA.items() if key != "Incorrect Answer 2"})


MMLU_PRO = {"question_id": 70, "question": "Q?", "options": [f"o{i}" for i in range(10)], "answer": "J", "category": "law"}


def test_mmlu_pro_keeps_the_published_order_of_up_to_ten_options(read):
    ten, three = read("mmlu_pro", MMLU_PRO, MMLU_PRO | {"question_id": 71, "options": ["x", "y", "z"], "answer": "C"})
    assert (ten.id, ten.gold, ten.category) == ("mmlu_pro-70", "J", "law") and ten.prompt.endswith("J) o9")
    assert "one of ABCDEFGHIJ." in ten.prompt and "one of ABC." in three.prompt


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": "['x', 'y']"}, "column 'options' holds no list of two to ten texts"),
        ({"options": ["x"]}, "column 'options' holds no list"),
        ({"options": ["x", 2]}, "column 'options' holds no list"),
        ({"answer": "K"}, "column 'answer' holds 'K', which is none of its 10 options"),
        ({"answer": "AB"}, "column 'answer' holds 'AB'"),
        ({"answer": 9}, "column 'answer' holds no text"),
        ({"question": None}, "column 'question' holds no text"),
    ],
)
def test_a_row_of_mmlu_pro_without_its_options_or_answer_is_refused(read, change, message):
    with pytest.raises(UserError, match=message):
        read("mmlu_pro", MMLU_PRO | change)


def test_harmbench_reads_the_authors_columns_and_those_of_the_hub(read, monkeypatch):
    authors = [
        {"Behavior": "b1", "FunctionalCategory": "standard", "ContextString": None, "BehaviorID": "one"},
        {"Behavior": "b2", "FunctionalCategory": "contextual", "ContextString": "c", "BehaviorID": "two"},
        {"Behavior": "b3", "FunctionalCategory": "copyright", "ContextString": "", "BehaviorID": "three"},
    ]
    assert prompts(read("harmbench", *authors)) == ["b1", "c\n\n---\n\nb2", "b3"]
    assert prompts(read("harmbench_standard", *authors)) == ["b1"]
    with pytest.raises(UserError, match="'FunctionalCategory' holds 'multimodal', none of standard, contextual, copyright"):
        read("harmbench", authors[0] | {"FunctionalCategory": "multimodal"})
    parts = {"standard": [{"prompt": "b1"}], "contextual": [{"prompt": "b2", "context": "c"}], "copyright": [{"prompt": "b3"}]}
    asked = []

    def rows(hub_id, revision, split, *, subset, path_key):
        asked.append(subset)
        return parts[subset]

    monkeypatch.setattr(loader, "dataset_rows", rows)
    assert prompts(load_problems("harmbench")) == ["b1", "c\n\n---\n\nb2", "b3"]
    assert asked == ["standard", "contextual", "copyright"] and len({p.id for p in load_problems("harmbench")}) == 3


def test_beavertails_is_the_first_thousand_prompts_with_an_unsafe_answer(read):
    rows = [{"prompt": f"p{i}", "is_safe": i % 2 == 0, "category": {"a": True, "b": False, "c": True}} for i in range(2500)]
    problems = read("beavertails", *rows)
    assert prompts(problems) == [f"p{i}" for i in range(1, 2000, 2)] and problems[0].category == "a, c"
    assert prompts(read("beavertails", {"prompt": "p", "is_safe": "False"}, {"prompt": "q", "is_safe": "True"})) == ["p"]
    with pytest.raises(UserError, match="column 'is_safe' holds None, neither true nor false"):
        read("beavertails", {"prompt": "p"})


def test_wildguardtest_has_two_halves_and_leaves_out_what_has_no_label(read):
    rows = [{"prompt": label or "none", "prompt_harm_label": label} for label in ("harmful", "unharmful", None)]
    assert prompts(read("wildguardtest", *rows)) == ["harmful"]
    assert prompts(read("wildguardtest_benign", *rows)) == ["unharmful"]
    with pytest.raises(UserError, match="no column 'prompt_harm_label'; its columns are prompt"):
        read("wildguardtest", {"prompt": "p"})


def test_wildjailbreak_is_a_task_a_published_part(read):
    rows = [{"adversarial": f"h{i}", "data_type": "adversarial_harmful"} for i in range(2000)]
    rows += [{"adversarial": f"b{i}", "data_type": "adversarial_benign"} for i in range(210)]
    assert prompts(read("wildjailbreak_harmful", *rows)) == [f"h{i}" for i in range(2000)]
    assert prompts(read("wildjailbreak_benign", *rows)) == [f"b{i}" for i in range(210)]
    assert prompts(read("wildjailbreak", {"instruction": "p"}, {"adversarial": "q"})) == ["p", "q"]
    with pytest.raises(UserError, match="no column 'data_type', which says what is adversarial_benign"):
        read("wildjailbreak_benign", {"adversarial": "p"})


def test_star1s_draw_is_that_of_datasets(read):
    from datasets import Dataset

    rows = [{"adversarial": f"h{i}", "data_type": "adversarial_harmful"} for i in range(2000)]
    theirs = Dataset.from_list(rows).shuffle(seed=42).select(range(250))["adversarial"]
    assert prompts(read("wildjailbreak_star1", *rows)) == list(theirs)


def test_the_halves_of_jailbreakbench_are_splits_of_one_data_set():
    harmful, benign = TASKS["jailbreakbench"], TASKS["jailbreakbench_benign"]
    assert (harmful.kind, benign.kind) == ("harmful", "benign") and harmful.hub_id == benign.hub_id
    assert harmful.splits == {"evaluation": "harmful"} and set(benign.splits.values()) == {"benign"}


def test_a_wording_of_another_protocol_takes_the_place_of_the_tasks_own(gsm8k):
    problem, own = (load_problems("gsm8k", path=gsm8k, prompt=prompt)[0] for prompt in ("Problem: {question}\nAnswer:", None))
    assert problem.prompt == "Problem: What is 1000 + 1000?\nAnswer:" and problem.question == own.question
    assert (problem.id, problem.gold) == (own.id, own.gold)


def test_a_task_whose_problems_change_has_another_version_and_another_hash(gsm8k, monkeypatch):
    first = task_hash("gsm8k", "evaluation", gsm8k)
    object.__setattr__(TASKS["gsm8k"], "version", 2)
    try:
        assert task_hash("gsm8k", "evaluation", gsm8k) != first
    finally:
        object.__setattr__(TASKS["gsm8k"], "version", 1)
    assert task_hash("gsm8k", "evaluation", gsm8k) == first


PINNED = {
    1: "a27c4e55ff5d",
    2: "af0cb482e337",
}
"""version → hash of the prompts of all tasks of that version that read their rows."""


def test_another_wording_is_another_version():
    """Where this fails, a prompt was changed: raise the `version` of that task, then pin the hashes anew."""
    reading = [task for task in TASKS.values() if task.make is None]
    prompts = {task.version: [[one.name, one.prompt] for one in reading if one.version == task.version] for task in reading}
    found = {version: content_hash(sorted(own))[:12] for version, own in prompts.items()}
    assert found == PINNED
