"""Frequent slips on the command line: one message each, which ends in what to write, and what it says is accepted."""

import json
import re
import shlex

import pytest

from dgr_lightning.cli.compose import compose
from dgr_lightning.cli.overrides import read_command_line
from dgr_lightning.errors import UserError

# Arguments → what the message tells the user to write.
SLIPS = {
    ("--lr", "1e-3"): "Write sft.lr=1e-3.",
    ("--sft.lr=1e-3",): "Write sft.lr=1e-3.",
    ("--learning-rate", "1e-3"): "Write sft.lr=1e-3.",
    ("--num_train_epochs=3",): "Write sft.epochs=3.",
    ("--output_dir", "out"): "Write hydra.run.dir=out.",
    ("--refine", "dgr"): "Write refine=dgr.",
    ("lr=1e-3",): "Write sft.lr=1e-3.",
    ("epochs=3",): "Write sft.epochs=3.",
    ("learning_rate=1e-3",): "Write sft.lr=1e-3.",
    ("model.path", "=", "x"): "Write model.path=x (no spaces around =).",
    ("model.path=", "x"): "Write model.path=x (no spaces around =).",
    ("model.path", "=x"): "Write model.path=x (no spaces around =).",
    ("sft.lr = 1e-3",): "Write sft.lr=1e-3.",
    ("sft.lr", "1e-3"): "Write sft.lr=1e-3.",
    ("sft.lr:1e-3",): "Write sft.lr=1e-3.",
    ("sft.lr==1e-3",): "Write sft.lr=1e-3.",
    ("sft.lr=1e-3,",): "Write sft.lr=1e-3.",
    ("vanilla",): "Write refine=vanilla.",
    ("refine=DGR",): "Write refine=dgr.",
    ("refine=dgr_best_of_4",): "Write refine=dgr-best-of-4.",
    ("data=rows.jsonl",): "write data.path=rows.jsonl.",
    ("data=owner/rows",): "write data.hub_id=owner/rows.",
    ("model=/some/folder",): "write model.path=/some/folder.",
    ("model=owner/model",): "write model.hub_id=owner/model.",
    ("name=“mine”",): "Write 'name=\"mine\"'.",
    ("data.limit=None",): "data.limit=null.",
    ("model.system_prompt=None",): "model.system_prompt=null.",
    ("sft.lr=1e-3", "sft.lr=2e-3"): "-m sft.lr=1e-3,2e-3.",
    ("refine=dgr", "refine=vanilla"): "-m refine=dgr,vanilla.",
    ("sft.lr=1e-3", "++sft.lr=2e-3"): "sft.lr is given twice",
    ("data.path=/tmp/a=b/rows.jsonl",): "Write 'data.path=\"/tmp/a=b/rows.jsonl\"'.",
    ("data.path=/tmp/rows (1).jsonl",): "Write 'data.path=\"/tmp/rows (1).jsonl\"'.",
    ("data.mix=[{data: local, path: /tmp/für/rows.jsonl, share: 1}]",): 'path: "/tmp/für/rows.jsonl", share: 1}]\'.',
    ("-m", "data.path=/für/a.jsonl,/für/b.jsonl"): 'Write \'data.path="/für/a.jsonl","/für/b.jsonl"\'.',
}


@pytest.mark.parametrize("arguments", SLIPS, ids=" ".join)
def test_a_slip_is_one_message_that_says_what_to_write(arguments):
    with pytest.raises(UserError) as raised:
        read_command_line(list(arguments), "train")
    message = str(raised.value)
    assert SLIPS[arguments] in message and "\n" not in message


@pytest.mark.parametrize("arguments", SLIPS, ids=" ".join)
def test_what_a_message_says_is_accepted(arguments):
    with pytest.raises(UserError) as raised:
        read_command_line(list(arguments), "train")
    written = re.search(r"[Ww]rite ((?:'[^']*'|[^\s'])+?)(?:\.$| \(no spaces)", str(raised.value))
    if written and "twice" not in str(raised.value):
        more = ["-m"] if "-m" in arguments else []
        read_command_line([*more, *shlex.split(written.group(1))], "train")


@pytest.mark.parametrize("value", ["/tmp/für/rows.jsonl", "~/rows.jsonl", "日本/rows.jsonl", "a;b&c#d.jsonl", "/tmp/ﬁle–x.csv"])
def test_a_plain_path_of_any_letters_is_taken_as_it_is(value):
    line = read_command_line([f"data.path={value}", "model=qwen3-0.6b"], "train")
    assert f'++data.path="{value}"' in line.overrides and "data=local" in line.overrides
    line = read_command_line([f"hydra.run.dir={value}"], "train")
    assert line.directory == value


def test_a_path_beyond_ascii_arrives_whole(tmp_path):
    rows = tmp_path / "für" / "zeilen ü.jsonl"
    rows.parent.mkdir()
    rows.write_text(json.dumps({"prompt": "p", "response": "<think>t</think>a"}) + "\n")
    assert compose("train", ["model=qwen3-0.6b", f"data.path={rows}"]).data.path == str(rows)


def test_a_number_is_not_taken_as_text():
    with pytest.raises(UserError, match="cannot be read"):
        read_command_line(["sft.lr=1é-3"], "train")


def test_the_same_twice_is_no_contradiction():
    assert read_command_line(["seed=1", "+seed=1"], "train").given == {"seed"}


def test_a_bare_file_is_a_path(tmp_path, folder):
    rows = tmp_path / "rows.jsonl"
    rows.touch()
    with pytest.raises(UserError, match=rf"Write data\.path={rows}\."):
        read_command_line([str(rows)], "train")
    with pytest.raises(UserError, match=rf"Write model\.path={folder}\."):
        read_command_line([str(folder)], "evaluate")


@pytest.fixture
def run_directory(tmp_path):
    """A directory as runs leave it, as far as its names go."""
    run = tmp_path / "run"
    (run / "stages").mkdir(parents=True)
    (run / ".run.json").write_text("{}")
    (run / "config.yaml").touch()
    return run


@pytest.mark.parametrize("command", ["train", "refine", "evaluate"])
def test_a_run_as_a_model_is_told_where_its_model_is(run_directory, command):
    (run_directory / "model").mkdir()
    (run_directory / "stages" / "train.json").write_text("{}")
    with pytest.raises(UserError, match=rf"that is a run; .* Write model\.path={run_directory}/model\."):
        compose(command, [f"model.path={run_directory}"])


def test_a_run_that_has_not_finished_says_so(run_directory):
    (run_directory / "metrics.csv").touch()
    with pytest.raises(UserError, match=rf"training has not finished.* model\.path={run_directory}/model\."):
        compose("evaluate", [f"model.path={run_directory}"])


def test_a_refinement_as_a_model_is_told_what_it_is_good_for(run_directory):
    (run_directory / "refined.jsonl").touch()
    with pytest.raises(UserError, match=rf"without a model of its own; its rows serve as data\.path={run_directory}\."):
        compose("evaluate", [f"model.path={run_directory}"])
    with pytest.raises(UserError, match=r"shift\.tuned=.*without a model"):
        compose("refine", [f"shift.tuned={run_directory}", "shift.prompts=8"])
