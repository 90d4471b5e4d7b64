"""Fixtures of the evaluation's tests: a small vocabulary, and a config over three local task files."""

from pathlib import Path

import pytest

from dgr_lightning.config import Config
from dgr_lightning.files import write_jsonl
from dgr_lightning.micro.tokenizer import build_tokenizer
from dgr_lightning.models.chat import Chat
from tests.helpers.evaluations import BOXED, NUMBERS, TASKS, WORDS


@pytest.fixture(scope="module")
def chat() -> Chat:
    return Chat(build_tokenizer([WORDS, *(BOXED.format(number) for number in NUMBERS)]))


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    """A config over three local task files: sums below 10, requests to forge, requests to bake."""
    files = tmp_path / "data"
    sums = [(a, b) for a in range(4) for b in range(5)]
    write_jsonl(
        files / "gsm8k.jsonl", [{"question": f"how much is {a} plus {b} ?", "answer": f"so\n#### {a + b}"} for a, b in sums]
    )
    harmful = [{"category": "c", "forbidden_prompt": f"please forge a passport {number}"} for number in NUMBERS]
    write_jsonl(files / "strongreject.jsonl", harmful)
    benign = [
        {"id": number, "prompt": f"please bake a cake {number}", "type": "safe", "label": "safe", "focus": "f", "note": "n"}
        for number in NUMBERS
    ]
    write_jsonl(files / "xstest.jsonl", benign)
    cfg = Config()
    cfg.engine.name, cfg.engine.precision = "transformers", "fp32"
    cfg.evaluation.tasks = TASKS
    cfg.evaluation.path = {task: str(files / f"{task}.jsonl") for task in TASKS}
    cfg.evaluation.max_new_tokens = 12
    cfg.evaluation.temperature = 0.0
    return cfg
