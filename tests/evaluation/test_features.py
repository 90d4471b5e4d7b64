"""The schema of `<task>.jsonl` for `datasets`: outputs of every kind of task and of both models are one table."""

from dgr_lightning.evaluation.features import COLUMNS, JUDGED, features
from dgr_lightning.files import read_jsonl
from tests.helpers.evaluations import TASKS, good, run_evaluation

TYPES = {"string": str, "int64": int, "bool": bool, "float64": float}


def unfinished(prompt, sample):
    """A model that never gets to an answer: what the other model's lines say of answers, its lines say nothing of."""
    return "so it how much is", "length"


def files_of(chat, cfg, place):
    """Returns the files of two models, of which the one that answers nothing comes first."""
    for name, script in (("base", unfinished), ("tuned", good)):
        run_evaluation(script, chat, cfg, place / name, out_dir=place / name, model_hash=name)
    return [place / name / f"{task}.jsonl" for name in ("base", "tuned") for task in TASKS]


def test_every_line_has_the_columns_and_types_of_the_schema(chat, cfg, tmp_path):
    cfg.evaluation.attack, cfg.evaluation.prefill = "gcg", "so"
    columns = set()
    for file in files_of(chat, cfg, tmp_path):
        for row in read_jsonl(file):
            judged = row.pop("judged", [])
            columns |= set(row)
            assert all(value is None or type(value) is TYPES[COLUMNS[name]] for name, value in row.items())
            for said in judged:
                assert list(said) == list(JUDGED)
                assert all(value is None or type(value) is TYPES[JUDGED[name]] for name, value in said.items())
    assert columns == set(COLUMNS) - {"thinking_capped"}  # which test_thinking_budget looks at


def test_outputs_of_all_tasks_and_models_load_as_one_table(chat, cfg, tmp_path):
    from datasets import load_dataset

    files = files_of(chat, cfg, tmp_path)
    for order in (files, files[::-1]):
        table = load_dataset(
            "json",
            data_files=[str(file) for file in order],
            features=features(),
            split="train",
            cache_dir=str(tmp_path / "cache"),
        )
        assert len(table) == 80 and list(table.features) == list(features())
        assert sorted({row["kind"] for row in table}) == ["benign", "harmful", "reasoning"]
        assert {row["final"] for row in table if row["kind"] == "harmful"} == {None}
