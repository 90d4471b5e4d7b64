from pathlib import Path

import pytest

from dgr_lightning.evaluation.samples import read_samples, subjects_of
from dgr_lightning.evaluation.subjects import outputs_file
from dgr_lightning.files import write_jsonl


def _write(run: Path, subject: str, task: str, ids: list[str]) -> None:
    write_jsonl(outputs_file(run, subject, task), [{"id": id_, "sample": 0, "output": id_.upper()} for id_ in ids])


def test_the_subjects_of_a_run_are_those_whose_outputs_are_on_disk(tmp_path: Path) -> None:
    assert subjects_of(tmp_path) == []
    _write(tmp_path, "tuned", "gsm8k", ["a"])
    assert subjects_of(tmp_path) == ["tuned"]
    _write(tmp_path, "base", "gsm8k", ["a"])
    assert subjects_of(tmp_path) == ["base", "tuned"]


def test_samples_are_read_when_their_task_is_looked_up_and_not_before(tmp_path: Path) -> None:
    _write(tmp_path, "base", "gsm8k", ["a", "b"])
    _write(tmp_path, "base", "xstest", ["c"])
    samples = read_samples(tmp_path, "base")
    assert list(samples) == ["gsm8k", "xstest"] and len(samples) == 2
    _write(tmp_path, "base", "xstest", ["d"])
    assert [row["id"] for row in samples["xstest"]] == ["d"]
    assert next(samples.stream("gsm8k"))["output"] == "A"


def test_tasks_are_those_of_the_summary_in_its_order_as_far_as_they_have_outputs(tmp_path: Path) -> None:
    for task in ("gsm8k", "math500", "xstest"):
        _write(tmp_path, "base", task, ["a"])
    samples = read_samples(tmp_path, "base", ["xstest", "gsm8k", "aime24"])
    assert list(samples) == ["xstest", "gsm8k"]
    with pytest.raises(KeyError):
        samples["math500"]
