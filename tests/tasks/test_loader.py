"""Problems of a task: from files, the hub and the miniature, drawn by seed, in splits that stay apart."""

import csv
import json
from pathlib import Path

import pytest

from dgr_lightning.errors import UserError
from dgr_lightning.tasks import loader
from dgr_lightning.tasks.loader import load_problems, task_hash
from dgr_lightning.tasks.prompt import BOXED_INSTRUCTION
from dgr_lightning.tasks.registry import TASKS
from dgr_lightning.tasks.task import Problem

MICRO = [name for name in TASKS if name.startswith("micro-")]


def test_a_problem_has_its_prompt_its_gold_and_an_id(gsm8k):
    problem = load_problems("gsm8k", path=gsm8k)[3]
    assert problem == Problem("gsm8k-3", "reasoning", f"What is 1003 + 1003?\n\n{BOXED_INSTRUCTION}", "2006")


def test_a_limit_draws_by_seed_keeps_the_order_and_grows_by_adding(gsm8k):
    every = load_problems("gsm8k", path=gsm8k)
    few, more = (load_problems("gsm8k", path=gsm8k, limit=limit, seed=5) for limit in (8, 20))
    assert len(few) == 8 and len(more) == 20 and set(few) < set(more)
    assert more == [problem for problem in every if problem in more] and more != every[:20]
    assert few != load_problems("gsm8k", path=gsm8k, limit=8, seed=6)
    assert load_problems("gsm8k", path=gsm8k, limit=40) == load_problems("gsm8k", path=gsm8k, limit=99) == every


def test_splits_never_share_an_id(gsm8k):
    evaluation, probe = (load_problems("gsm8k", split=split, path=gsm8k) for split in ("evaluation", "probe"))
    assert not {problem.id for problem in evaluation} & {problem.id for problem in probe}


@pytest.mark.parametrize("name", MICRO)
def test_the_miniatures_splits_are_disjoint(name):
    evaluation, probe = (load_problems(name, split=split) for split in ("evaluation", "probe"))
    assert evaluation and probe
    assert not {problem.prompt for problem in evaluation} & {problem.prompt for problem in probe}
    assert all((problem.gold is not None) == (problem.kind == "reasoning") for problem in evaluation + probe)
    assert len({problem.id for problem in evaluation}) == len(evaluation)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "?", "answer": "no mark"}, "#### <number>"),
        ({"question": "?"}, "no column 'answer'; its columns are question"),
        ({"question": "", "answer": "#### 1"}, "column 'question' holds no text"),
        ({"question": None, "answer": "#### 1"}, "column 'question' holds no text"),
        ({"question": ["?"], "answer": "#### 1"}, "column 'question' holds no text"),
        ({"question": "half \ud83d", "answer": "#### 1"}, "half of a surrogate pair"),
    ],
)
def test_a_row_that_is_no_problem_is_an_error_with_its_place(tmp_path, row, message):
    path = tmp_path / "gsm8k.json"
    path.write_text(json.dumps([{"question": "?", "answer": "#### 1"}, row]), encoding="utf-8")
    with pytest.raises(UserError, match=r"evaluation\.path\.gsm8k=.*row 1: ") as error:
        load_problems("gsm8k", path=str(path))
    assert message in str(error.value)


def test_a_file_of_another_set_or_with_one_id_twice_is_refused(tmp_path):
    path = tmp_path / "xstest.csv"
    path.write_text("id,prompt,label\n1,a,unsafe\n", encoding="utf-8")
    with pytest.raises(UserError, match="none of its 1 rows"):
        load_problems("xstest", path=str(path))
    path.write_text("id,prompt,label\n1,a,safe\n1,b,safe\n", encoding="utf-8")
    with pytest.raises(UserError, match="one id"):
        load_problems("xstest", path=str(path))
    path.write_text("id,prompt,label\n1,a,harmless\n", encoding="utf-8")
    with pytest.raises(UserError, match="neither safe nor unsafe"):
        load_problems("xstest", path=str(path))


def test_hub_rows_take_the_same_way(monkeypatch):
    asked = []

    def rows(hub_id, revision, split, *, subset=None, path_key):
        asked.append((hub_id, revision, split, subset, path_key))
        return [{"prompt": "p", "category": "c"}] if "StrongREJECT" in hub_id else [{"question": "q", "answer": "#### 1,000"}]

    monkeypatch.setattr(loader, "dataset_rows", rows)
    assert load_problems("strongreject") == [Problem("strongreject-0", "harmful", "p", None)]
    assert load_problems("gsm8k", split="probe")[0].gold == "1000"
    assert asked[0][2:] == ("train", None, "evaluation.path.strongreject")
    assert asked[1] == ("openai/gsm8k", TASKS["gsm8k"].revision, "train", "main", "probes.path.gsm8k")


def test_content_follows_the_bytes_the_commit_and_the_split(gsm8k, tmp_path, monkeypatch):
    copy = tmp_path / "elsewhere.jsonl"
    copy.write_bytes(Path(gsm8k).read_bytes())
    assert task_hash("gsm8k", "evaluation", gsm8k) == task_hash("gsm8k", "evaluation", str(copy))
    copy.write_bytes(Path(gsm8k).read_bytes() + b"\n")
    every = {
        task_hash("gsm8k", "evaluation", gsm8k),
        task_hash("gsm8k", "evaluation", str(copy)),
        task_hash("gsm8k", "evaluation"),
        task_hash("gsm8k", "probe"),
        task_hash("math500", "evaluation"),
        task_hash("micro-short", "probe"),
    }
    assert len(every) == 6
    monkeypatch.setattr(loader, "dataset_rows", lambda *_, **__: [{"prompt": "p"}])
    unpinned = task_hash("advbench", "probe")
    monkeypatch.setattr(loader, "dataset_rows", lambda *_, **__: [{"prompt": "q"}])
    assert task_hash("advbench", "probe") != unpinned


REAL = {
    "gsm8k": ("gsm8k/test.jsonl", 1319),
    "math500": ("math500/test.jsonl", 500),
    "strongreject": ("strongreject/strongreject_dataset.csv", 313),
    "xstest": ("xstest/xstest_prompts.csv", 250),
    "advbench": ("advbench/advbench.csv", 520),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files_are_read_whole(shared, name):
    file, count = REAL[name]
    problems = load_problems(name, path=str(shared / "data" / file))
    assert len(problems) == count == len({problem.id for problem in problems})
    assert all(problem.kind == TASKS[name].kind and problem.prompt for problem in problems)
    assert all((problem.gold is not None) == (problem.kind == "reasoning") for problem in problems)


def test_real_golds_are_as_they_stand_in_the_file(shared):
    golds = {problem.gold for problem in load_problems("gsm8k", path=str(shared / "data/gsm8k/test.jsonl"))}
    assert "114200" in golds and "-10" in golds and not any("," in gold for gold in golds)
    assert load_problems("math500", path=str(shared / "data/math500/test.jsonl"))[0].id == "math500-precalculus-807"


def test_no_harmful_probe_is_reported_by_strongreject(shared):
    """StrongREJECT took requests over from AdvBench: they are no probes."""
    advbench = str(shared / "data/advbench/advbench.csv")
    probes = load_problems("advbench", split="probe", path=advbench)
    assert len(probes) == 493 and len(load_problems("advbench", path=advbench)) == 520

    def words(text):
        return frozenset("".join(c if c.isalnum() else " " for c in text.lower()).split())

    with open(shared / "data/strongreject/strongreject_dataset.csv", encoding="utf-8", newline="") as file:
        reported = [words(row["forbidden_prompt"]) for row in csv.DictReader(file)]
    closest = max(len(words(p.prompt) & r) / len(words(p.prompt) | r) for p in probes for r in reported)
    assert closest < 0.6
