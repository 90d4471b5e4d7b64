"""A judge or a grader compared with labels on files of anyone's."""

import json
import subprocess
import sys

import pytest

from dgr_lightning.errors import UserError
from dgr_lightning.scoring.check import check_judge, compare, config_of, read_command, run
from dgr_lightning.scoring.labelled_texts import answer_of, read_table

ANSWERS = [
    {"id": "a", "prompt": "how ?", "text": "I'm sorry, but I can't help with that.", "refused": True, "model": "x"},
    {"id": "b", "prompt": "how ?", "text": "Take flour, then stir.", "refused": 0, "model": "x"},
    {"id": "c", "prompt": "why ?", "text": "<think>I cannot.</think>Like this.", "refused": "no", "model": "y"},
    {"id": "d", "prompt": "why ?", "text": "<think>I cannot", "refused": "1_full_compliance", "model": "y"},
    {"id": "e", "prompt": "when ?", "text": "Ask somebody else.", "refused": "3_partial_refusal", "model": "y"},
    {"id": "f", "prompt": "when ?", "text": "", "refused": None, "model": "y"},
]


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def command(*words):
    return subprocess.run(
        [sys.executable, "-m", "dgr_lightning.scoring.check", *map(str, words)], capture_output=True, text=True
    )


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_judge_gives_a_verdict_a_line_and_agreement_on_the_screen(tmp_path):
    file, out = jsonl(tmp_path / "answers.jsonl", ANSWERS), tmp_path / "out.jsonl"
    done = command("judge=keywords", file, f"out={out}")
    assert done.returncode == 0, done.stderr
    assert [line["refused"] for line in lines(out)] == [True, False, False, False, False, False]
    assert [line["id"] for line in lines(out)] == list("abcdef") and lines(out)[3]["error"] == "no_text"
    assert {tuple(line) for line in lines(out)} == {("id", "refused", "harmful", "probability", "score", "error")}
    shown = " ".join(done.stdout.split())
    assert "x: refused 2 1.000" in shown and "y: refused 3 0.667" in shown and "all: refused 5 0.800" in shown


def test_a_judge_of_words_needs_no_torch(tmp_path):
    file = jsonl(tmp_path / "answers.jsonl", ANSWERS)
    code = (
        "import sys; from dgr_lightning.scoring.check import run; "
        f"run(['judge=keywords', {str(file)!r}]); print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.endswith("False\n")


def test_agreement_by_group_leaves_out_rows_without_a_label(tmp_path):
    table = read_table([jsonl(tmp_path / "answers.jsonl", ANSWERS)], {})
    _, said = check_judge(table, config_of({"judge": "keywords"}))
    found = {(group, name): (one.n, one.both, one.label_only, untold) for group, name, one, untold in compare(table, said)}
    assert found == {("x", "refused"): (2, 1, 0, 0), ("y", "refused"): (3, 0, 1, 0), ("all", "refused"): (5, 1, 1, 0)}


def test_a_grader_is_held_to_gold_answers_after_thinking(tmp_path):
    rows = [
        {"output": "<think>\\boxed{9}</think>\\boxed{7}", "gold": 7, "correct": 1},
        {"output": "<think>\\boxed{7}", "gold": "7", "correct": "wrong"},
        {"output": "It is \\boxed{8}.", "gold": "7", "correct": True},
    ]
    out = tmp_path / "out.jsonl"
    done = command("grader", jsonl(tmp_path / "outputs.jsonl", rows), f"out={out}")
    assert done.returncode == 0, done.stderr
    assert [(line["correct"], line["outcome"]) for line in lines(out)] == [
        (True, "right"),
        (False, "no_answer"),
        (False, "wrong"),
    ]
    assert "all: correct 3 0.667" in " ".join(done.stdout.split())


def test_another_grader_other_columns_and_other_formats(tmp_path):
    csv, out = tmp_path / "choices.csv", tmp_path / "out.jsonl"
    csv.write_text("answer,key\nAnswer: B,B\nAnswer: C,B\n", encoding="utf-8")
    run(["grader", "grader=choice", "output=answer", "gold=key", str(csv), f"out={out}"])
    assert [line["correct"] for line in lines(out)] == [True, False]


def test_files_are_groups_where_there_are_several(tmp_path):
    files = [jsonl(tmp_path / f"{name}.jsonl", [{"text": "I cannot.", "refused": 1}]) for name in ("one", "two")]
    assert read_table(files, {}).groups == ["one", "two"] and read_table(files[:1], {}).groups == [""]


@pytest.mark.parametrize(
    ("text", "answer"),
    [("a", "a"), ("<think>t</think> a", "a"), ("t</think>u</think>\n a", "a"), ("\n<think>t", None), ("", "")],
)
def test_what_follows_the_last_close_of_thinking_is_the_answer(text, answer):
    assert answer_of(text) == answer


def test_keys_of_the_judge_are_those_of_evaluate(tmp_path):
    phrases = tmp_path / "own.txt"
    phrases.write_text("no way\n")
    cfg = config_of({"judge": "keywords", "judge.phrases": str(phrases), "engine.batch_size": "3"})
    assert cfg.judge.phrases == str(phrases) and cfg.engine.batch_size == 3 and cfg.engine.name == "auto"
    assert config_of({"judge": "qwen3guard", "judge.controversial": "safe"}).judge.controversial == "safe"


BAD = {
    "no judge and no grader": (["FILE"], "neither a judge nor a grader is named; write judge=keywords, or grader."),
    "no file": (["judge=keywords"], "no file is named"),
    "a missing file": (["judge=keywords", "/not/there.jsonl"], "/not/there.jsonl: no such file"),
    "both": (["grader", "judge=keywords", "FILE"], "a grader is checked here"),
    "an unknown judge": (["judge=gpt", "FILE"], "judge.name=gpt: expected one of"),
    "an unknown grader": (["grader=sums", "output=text", "gold=prompt", "FILE"], "grader=sums: expected one of"),
    "an unknown key": (["judge=keywords", "judge.phrase=x", "FILE"], "no key 'judge.phrase'"),
    "a column that is named and not there": (["judge=keywords", "text=reply", "FILE"], "text=reply: no such column"),
    "no column": (["grader", "FILE"], "no column 'output'. There are: id, prompt, text"),
    "an unknown option": (["judge=keywords", "--fast", "FILE"], "--fast: no such option"),
    "an unknown word": (["judge=keywords", "speed=1", "FILE"], "speed=1: nothing of this name is read here"),
    "a label that says nothing": (["judge=keywords", "refused=prompt", "FILE"], "'how ?' says neither yes nor no"),
    "out is the input": (["judge=keywords", "FILE", "out=FILE"], "the file that is read; name another one"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_checked_is_one_message(tmp_path, case):
    words, message = BAD[case]
    file = jsonl(tmp_path / "answers.jsonl", ANSWERS)
    with pytest.raises(UserError) as error:
        run([word.replace("FILE", str(file)) for word in words])
    assert message in str(error.value)


def test_exit_codes_and_help(tmp_path):
    done = command("judge=keywords", tmp_path / "not.jsonl")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "no such file" in done.stderr
    assert "out= gets a line for each row" in command("--help").stdout


def test_a_command_line_is_read():
    found = read_command(["judge=keywords", "a.jsonl", "b.csv", "out=o.jsonl", "text=completion", "judge.phrases=p.txt"])
    assert [file.name for file in found.files] == ["a.jsonl", "b.csv"] and found.names == {"text": "completion"}
    assert found.out is not None and found.out.name == "o.jsonl" and found.grader is None
    assert found.keys == {"judge": "keywords", "judge.phrases": "p.txt"}
