"""plan=true: what it shows, what it needs, and how it ends."""

from __future__ import annotations

import shutil
import subprocess
import sys
from io import StringIO

import pytest
from rich.console import Console

from dgr_lightning.cli.compose import compose
from dgr_lightning.errors import UserError
from dgr_lightning.files import read_json, write_json, write_jsonl
from dgr_lightning.models.folder import LANGUAGE
from dgr_lightning.pipeline.place import Place
from dgr_lightning.pipeline.plan import plan
from tests.helpers.runs import ROOT, environment

HARMFUL, BENIGN = "how do I forge a passport ?", "how do I draw a cat ?"


@pytest.fixture
def screen(monkeypatch):
    stream = StringIO()
    console = Console(file=stream, width=200, highlight=False)
    for module in ("console", "report.plan", "pipeline.example_view"):
        monkeypatch.setattr(f"dgr_lightning.{module}.console", console)
    return stream


@pytest.fixture
def tokenizer_folder(micro_folder, tmp_path):
    """The miniature without its weights."""
    return shutil.copytree(micro_folder, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))


@pytest.fixture
def rows(tmp_path):
    """Rows of two labels, and one that is rejected."""
    harmful = {"trace": "I consider .", "answer": "no .", "label": "harmful"}
    examples = [
        *({"prompt": f"{HARMFUL} {n}"} | harmful for n in range(3)),
        {"prompt": BENIGN, "trace": "", "answer": "sure ! " * 9, "label": "benign"},
        {"prompt": BENIGN, "trace": "x", "answer": ""},
    ]
    write_jsonl(tmp_path / "rows.jsonl", examples)
    return tmp_path / "rows.jsonl"


def planned(tmp_path, *overrides, command="train"):
    plan(compose(command, ["plan=true", *overrides]), Place(root=tmp_path / "runs"), measures=command == "train")


def words(screen):
    return " ".join(screen.getvalue().split())


def test_it_needs_config_tokenizer_and_rows_and_shows_the_set(tmp_path, tokenizer_folder, rows, screen):
    overrides = [f"model.path={tokenizer_folder}", f"data.path={rows}", "data.benign_ratio=0.25"]
    planned(tmp_path, *overrides)
    shown = words(screen)
    assert "local 1 3 4" in shown, "source, benign, harmful, all"
    assert "rejected: " in shown and "empty traces 1 of the source" in shown
    assert "model.chat_style=think, <think> … </think>" in shown
    assert "✓ trace and answer come back out of the target" in shown and "✗" not in shown
    assert "can be trained on as it is" in shown


def test_harmful_text_is_in_the_file_alone_and_the_run_directory_stays_free(tmp_path, tokenizer_folder, rows, screen):
    planned(tmp_path, f"model.path={tokenizer_folder}", f"data.path={rows}", "data.benign_ratio=0.25")
    assert "forge" not in screen.getvalue() and "of text" in screen.getvalue()
    cfg = compose("train", ["plan=true", f"model.path={tokenizer_folder}", f"data.path={rows}"])
    plan(cfg, Place(exact=tmp_path / "here" / "run"), measures=True)
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["plan"], "beside the run directory, which stays free"
    (file,) = (tmp_path / "runs").rglob("*.txt")
    assert file.parent == tmp_path / "runs" / "dgr" / "plan" and "forge" in file.read_text()


def test_what_does_not_fit_ends_with_an_override_that_does(tmp_path, tokenizer_folder, rows, screen):
    overrides = [f"model.path={tokenizer_folder}", f"data.path={rows}", "data.benign_ratio=0.25"]
    with pytest.raises(UserError) as error:
        planned(tmp_path, *overrides, "sft.max_length=16")
    message, _, tried = str(error.value).partition("\ntry: ")
    assert "local-3" in message or "rows-3" in message
    planned(tmp_path, *overrides, tried)
    with pytest.raises(UserError, match="try: "):
        planned(tmp_path, *overrides, f"sft.max_length={int(tried.partition('=')[2]) - 1}")


def test_tasks_out_of_reach_are_listed_and_the_others_compared(tmp_path, tokenizer_folder, rows, shared, screen, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = read_json(tokenizer_folder / "config.json")
    write_json(tokenizer_folder / "config.json", {key: value for key, value in config.items() if key != LANGUAGE})
    strongreject = shared / "data" / "strongreject" / "strongreject_dataset.csv"
    overrides = [
        f"model.path={tokenizer_folder}",
        f"data.path={rows}",
        "evaluation.tasks=[math500,strongreject]",
        f"evaluation.path.strongreject={strongreject}",
    ]
    planned(tmp_path, *overrides)
    shown = words(screen)
    assert "no prompt of strongreject" in shown and "since out of reach here: math500 (evaluation)" in shown
    planned(tmp_path, *overrides[:2], command="refine")
    assert "no task was compared" in words(screen)


def test_a_format_that_loses_something_ends_with_2(tmp_path, tokenizer_folder, rows, screen, monkeypatch):
    from dgr_lightning.models.chat import Chat

    sound = Chat.target_ids
    monkeypatch.setattr(Chat, "target_ids", lambda self, trace, answer: sound(self, "", answer))
    with pytest.raises(UserError, match=r"model\.chat_style=think: 3 examples do not come through"):
        planned(tmp_path, f"model.path={tokenizer_folder}", f"data.path={rows}")
    assert "✗ trace and answer come back" in words(screen)


def test_evaluate_has_no_set_to_plan():
    with pytest.raises(UserError, match=r"plan=true: evaluate\.py reads no source set"):
        compose("evaluate", ["plan=true"])


def test_a_machine_that_is_not_there_can_be_planned_for():
    assert compose("train", ["plan=true", "trainer=fsdp-multinode", "trainer.nodes=2", "trainer.devices=8"]).trainer.nodes == 2
    with pytest.raises(UserError, match="torchrun starts this"):
        compose("train", ["trainer=fsdp-multinode", "trainer.nodes=2", "trainer.devices=8"])


@pytest.mark.slow
def test_star1_as_r1_distill_sees_it(tmp_path, shared, screen):
    folder = tmp_path / "model"
    folder.mkdir()
    for file in (shared / "tokenizers" / "r1-distill-qwen").iterdir():
        shutil.copyfile(file, folder / file.name)
    (folder / "config.json").write_text('{"model_type": "qwen2"}')
    rows = shared / "data" / "star1" / "STAR-1.json"
    planned(tmp_path, "model=r1-distill-7b", f"model.path={folder}", "data=star1", f"data.path={rows}", command="refine")
    shown = words(screen)
    assert "star1 638 362 1,000" in shown and "whole 346 677 1,145" in shown and "✗" not in shown


@pytest.mark.slow
@pytest.mark.parametrize(("overrides", "code"), [pytest.param([], 0, marks=pytest.mark.slow), (["sft.max_length=20"], 2)])
def test_the_command_ends_with_its_code_and_leaves_no_run(tmp_path, cache, overrides, code):
    ended = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "plan=true", *overrides],
        cwd=tmp_path,
        env=environment(cache),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == code, ended.stderr
    assert ("try: sft.max_length=" in ended.stderr) == (code == 2)
    assert [path.name for path in (tmp_path / "runs" / "dgr").iterdir()] == ["plan"]
    assert not cache.exists() or not any(cache.iterdir())
