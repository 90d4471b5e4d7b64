"""A training that will not fit is refused before anything is generated, with overrides that are accepted."""

import json
import shutil
import sys

import pytest

from dgr_lightning.cli import entry
from dgr_lightning.cli.failures import BAD_CONFIG, DONE
from dgr_lightning.config import Config
from dgr_lightning.files import write_jsonl
from dgr_lightning.pipeline import commands
from dgr_lightning.pipeline.memory_check import largest_row, longest_possible
from dgr_lightning.pipeline.set_lengths import ExampleLength

SHORT = ExampleLength("a", prompt=100, trace=300, answer=50, marks=4)


def refined(strategy: str = "dgr", **refine) -> Config:
    cfg = Config()
    cfg.refine.strategy = strategy
    for key, value in refine.items():
        setattr(cfg.refine, key, value)
    return cfg


def test_an_example_is_planned_as_long_as_its_rewrite_may_become() -> None:
    assert longest_possible(SHORT, refined()) == 104 + 5000 + 5000, "what has overthought is not kept"
    assert longest_possible(SHORT, refined(max_new_tokens=1024)) == 104 + 2 * 1024
    assert longest_possible(SHORT, refined(parts=["answer"], max_new_tokens=1024)) == 104 + 300 + 1024
    assert longest_possible(SHORT, refined(checks=["unfinished"])) == 16384, "sft.max_length"
    assert longest_possible(SHORT, refined("sdft", max_new_tokens=1024)) == 104 + 1024
    assert longest_possible(SHORT, refined("vanilla")) == longest_possible(SHORT, refined(fraction=0.0)) == 454
    empty = ExampleLength("b", prompt=100, trace=0, answer=50, marks=4)
    assert longest_possible(empty, refined(max_new_tokens=1024)) == 104 + 1024, "an empty trace stays empty"
    long = ExampleLength("c", prompt=100, trace=3000, answer=50, marks=4)
    assert longest_possible(long, refined(max_new_tokens=1024)) == 104 + 3000 + 1024, "it may fall back to the original"
    cfg = refined()
    cfg.sft.max_length = 2000
    assert longest_possible(SHORT, cfg) == 2000


def test_a_row_holds_what_a_step_packs_into_it() -> None:
    cfg = Config()
    cfg.trainer.devices, cfg.sft.batch_size, cfg.sft.max_tokens = 1, 4, 1000
    assert largest_row([100] * 9, cfg).documents == (448,) and not largest_row([100] * 9, cfg).several
    assert largest_row([400] * 9, cfg).documents == (1024,) and largest_row([400] * 9, cfg).several
    assert largest_row([100, 3000], cfg).documents == (3008,), "longer than a row: one of its own"
    cfg.trainer.devices = 4
    assert largest_row([400] * 9, cfg).documents == (832,) and not largest_row([400] * 9, cfg).several


def run(monkeypatch, *overrides: str) -> int:
    monkeypatch.setattr(sys, "argv", ["train.py"])
    return entry.run(commands.train, "train", list(overrides))


@pytest.mark.slow
def test_a_machine_too_small_is_said_before_anything_is_generated(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("DGR_CACHE", str(tmp_path / "cache"))
    place = f"hydra.run.dir={tmp_path / 'run'}"
    assert run(monkeypatch, place, "trainer=cpu", "trainer.device_memory_gib=0.005", "data.limit=8") == BAD_CONFIG
    error = capsys.readouterr().err
    assert "The training needs" in error and "for a row of" in error and "refine.max_new_tokens" in error
    assert not (tmp_path / "cache" / "rewrites").exists() and not (tmp_path / "run" / "refined.jsonl").exists()


SEVEN_BILLION = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 131072,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
}


@pytest.fixture
def planned_7b(tmp_path, shared, monkeypatch) -> list[str]:
    """DeepSeek-R1-Distill-Qwen-7B without its weights, and some rows."""
    monkeypatch.setenv("DGR_CACHE", str(tmp_path / "cache"))
    folder = shutil.copytree(shared / "tokenizers" / "r1-distill-qwen", tmp_path / "model")
    (folder / "config.json").write_text(json.dumps(SEVEN_BILLION))
    rows = [{"prompt": f"What is {n} and {n}?", "trace": "I add. " * 40, "answer": f"It is {2 * n}."} for n in range(16)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    return [
        "plan=true",
        f"hydra.run.dir={tmp_path / 'run'}",
        "model=r1-distill-7b",
        f"model.path={folder}",
        "data=local",
        f"data.path={tmp_path / 'rows.jsonl'}",
        "trainer.accelerator=cuda",
    ]


def with_changes(overrides: list[str], changes: list[str]) -> list[str]:
    """Overrides with some of them changed: a key is given once."""
    keys = {change.partition("=")[0] for change in changes}
    return [one for one in overrides if one.partition("=")[0] not in keys] + changes


@pytest.mark.slow
def test_a_7b_on_one_card_of_80_gb_is_refused_with_overrides_that_are_accepted(planned_7b, monkeypatch, capsys) -> None:
    overrides = [*planned_7b, "trainer.devices=1", "trainer.device_memory_gib=80"]
    assert run(monkeypatch, *overrides) == BAD_CONFIG
    said = capsys.readouterr()
    assert "Memory on one device (single) of 80 GiB" in said.out and "source as it is" in said.out
    tried = [line.removeprefix("try: ").split() for line in said.err.splitlines() if line.startswith("try: ")]
    assert {"trainer.cpu_offload=true", "tuning=lora"} <= {override for changes in tried for override in changes}
    assert len(tried) >= 3
    for changes in tried:
        assert run(monkeypatch, *with_changes(overrides, changes)) == DONE, changes
    assert "refined, at most" in capsys.readouterr().out


def test_eight_devices_that_are_not_here_are_planned_for(planned_7b, monkeypatch, capsys) -> None:
    assert run(monkeypatch, *planned_7b, "trainer.devices=8", "trainer.device_memory_gib=80") == DONE
    shown = capsys.readouterr().out
    assert "Memory on each of 8 devices (fsdp) of 80 GiB" in shown and "trainer.recompute_every" in shown


def test_without_a_device_memory_is_not_planned(planned_7b, monkeypatch, capsys) -> None:
    assert run(monkeypatch, *planned_7b, "trainer.devices=1") == DONE
    assert "memory: not planned; trainer.accelerator=cuda trainer.device_memory_gib=80" in capsys.readouterr().out
