"""vLLM on the widths, vocabulary and tokenizer of R1-Distill-Qwen-7B: two random layers in a sharded folder, real rows."""

import json
import shutil

import pytest

from dgr_lightning.records import read_jsonl
from runs import run, stored_lines, summary_of

WIDTHS = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 131072,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}


@pytest.fixture(scope="module")
def folder(shared, tmp_path_factory):
    """A sharded folder of 1.5B random parameters, as a download of the real model would lie there."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    path = tmp_path_factory.mktemp("wide") / "model"
    with torch.device("meta"):
        model = Qwen2ForCausalLM(Qwen2Config(num_hidden_layers=2, **WIDTHS)).to(torch.bfloat16)
    model.to_empty(device="cpu")
    torch.manual_seed(0)
    noise = 0.02 * torch.randn(2**20 + 7, dtype=torch.bfloat16)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)
            else:  # one block of noise over and over: a billion normal draws would take longer than the test
                copies = -(-parameter.numel() // len(noise))
                parameter.copy_(noise.repeat(copies)[: parameter.numel()].view_as(parameter))
    model.save_pretrained(path, max_shard_size="1GB")
    for file in (shared / "tokenizers" / "r1-distill-qwen").iterdir():
        shutil.copy(file, path)
    return path


@pytest.mark.slow
def test_vllm_refines_real_rows_with_both_templates_on_7b_widths(folder, shared, cache, tmp_path):
    pytest.importorskip("vllm", reason="vLLM is not installed in this environment")
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 1
    rows = shared / "data" / "star1" / "STAR-1.json"
    overrides = [f"model.path={folder}", "data=star1", f"data.path={rows}", "data.limit=8", "engine=vllm"]
    # Random weights never stop: every part falls back, but both are asked for.
    budget = ["refine.max_new_tokens=48", "refine.fallback_unit=part", "engine.max_length=8192", "engine.compile=false"]
    printed = run(tmp_path / "run", cache, *overrides, *budget, script="refine.py")
    assert "16 completions generated" in printed

    stored = [json.loads(line) for line in stored_lines(cache)]
    assert sorted(row["key"].split("/")[-3] for row in stored) == ["answer"] * 8 + ["trace"] * 8
    assert all(row["num_tokens"] == 48 and row["finish_reason"] == "length" and row["text"] for row in stored)
    refined = list(read_jsonl(tmp_path / "run" / "refined.jsonl"))
    assert len(refined) == 8 and {row["reason"] for row in refined} == {"unfinished"}
    figures = summary_of(tmp_path / "run")["refinement"]
    assert figures["fallback"] == {"unfinished": 8} and 8 < figures["nll_before"] < 40
    assert "unfinished" in (tmp_path / "run" / "report.html").read_text()
    assert (tmp_path / "run" / "dataset" / "README.md").exists()
