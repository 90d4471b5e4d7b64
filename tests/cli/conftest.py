"""Fixtures of the command line: run a script's frame in this process, a model folder, rows."""

import json
import sys

import pytest

from dgr_lightning.cli import entry


@pytest.fixture
def run_script(tmp_path, monkeypatch):
    """Runs a command line with a stage that keeps what it gets, in an empty folder; returns the exit code and that."""

    def run(*arguments, main=None, command="train"):
        seen = []

        def stage(cfg, place):
            seen.append((cfg, place))
            if main is not None:
                main(cfg)

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [f"{command}.py"])
        return entry.run(stage, command, list(arguments)), seen

    return run


@pytest.fixture
def folder(tmp_path):
    """A folder that looks like a Hugging Face model."""
    folder = tmp_path / "some-model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"\0" * 16)
    return folder


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "p", "response": "<think>t</think>a"}\n')
    return path
