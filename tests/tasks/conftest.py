"""A local copy of GSM8K for the tests of tasks."""

import json

import pytest


@pytest.fixture
def gsm8k(tmp_path):
    path = tmp_path / "gsm8k.jsonl"
    rows = [{"question": f"What is {i} + {i}? ", "answer": f"It is {2 * i}.\n#### {2 * i:,}"} for i in range(1000, 1040)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)
