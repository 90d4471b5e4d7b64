"""vLLM on the widths, vocabulary and tokenizer of R1-Distill-Qwen-7B: two random layers in a sharded folder, real rows."""

import json
from importlib.util import find_spec

import pytest

from dgr_lightning.files import read_jsonl
from tests.helpers.runs import run, stored_lines, summary_of


@pytest.mark.slow
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed in this environment")
def test_vllm_refines_real_rows_with_both_templates_on_7b_widths(wide_folder, shared, cache, tmp_path):
    assert len(list(wide_folder.glob("model-*-of-*.safetensors"))) > 1
    rows = shared / "data" / "star1" / "STAR-1.json"
    overrides = [f"model.path={wide_folder}", "data=star1", f"data.path={rows}", "data.limit=8", "engine=vllm"]
    # Random weights never stop: every part falls back, but both are asked for.
    budget = ["refine.max_new_tokens=16", "refine.fallback_unit=part", "engine.max_length=8192", "engine.compile=false"]
    printed = run(tmp_path / "run", cache, *overrides, *budget, script="refine.py")
    assert "16 completions generated" in printed

    stored = [json.loads(line) for line in stored_lines(cache)]
    assert sorted(row["key"].split("/")[-3] for row in stored) == ["answer"] * 8 + ["trace"] * 8
    assert all(row["num_tokens"] == 16 and row["finish_reason"] == "length" and row["text"] for row in stored)
    refined = list(read_jsonl(tmp_path / "run" / "refined.jsonl"))
    assert len(refined) == 8 and {row["reason"] for row in refined} == {"unfinished"}
    figures = summary_of(tmp_path / "run")["refinement"]
    assert figures["fallback"] == {"unfinished": 8} and 8 < figures["nll_before"] < 40
    assert "unfinished" in (tmp_path / "run" / "report.html").read_text()
    assert (tmp_path / "run" / "dataset" / "README.md").exists()
