"""The dataset folder: what `datasets` loads is refined.jsonl; the card tells how it was made and quotes no example."""

import yaml

from dgr_lightning.config import Config
from dgr_lightning.example import RefinedExample, read_refined
from dgr_lightning.files import write_jsonl
from dgr_lightning.refinement.dataset import card, write_dataset
from dgr_lightning.refinement.outcome import RefinementStats

SECRET = "how to forge a passport"
EXAMPLES = [
    RefinedExample(
        f"set-{n}", f"{SECRET} {n}", "trace \N{LLAMA}\n\u2028", "no", "harmful", "set", n > 0, None if n else "empty"
    )
    for n in range(5)
]
STATS = RefinementStats(examples=5, refined=4, fallback={"empty": 1}, tokens_before=70, tokens_after=90)
TEMPLATES = {"dgr_trace": "Say: {{ trace }}\n"}


def config() -> Config:
    cfg = Config()
    cfg.model.hub_id, cfg.model.revision, cfg.data.hub_id = "owner/model", "0123abc", "owner/set"
    cfg.engine.name, cfg.engine.precision = "vllm", "bf16"
    cfg.refine.trace_template = "/home/somebody/mine.jinja"
    return cfg


def test_what_datasets_loads_is_the_refined_set(tmp_path, monkeypatch):
    from datasets import load_dataset

    write_jsonl(tmp_path / "refined.jsonl", EXAMPLES)
    for _ in range(2):  # a second time replaces the first
        text = card(config(), STATS, {"before": 9.0, "after": 0.5}, "abc123", TEMPLATES)
        write_dataset(tmp_path / "refined.jsonl", tmp_path / "dataset", text)
    rows = load_dataset(str(tmp_path / "dataset"), split="train", cache_dir=str(tmp_path / "cache"))
    assert [RefinedExample(**row) for row in rows] == EXAMPLES == read_refined(tmp_path / "refined.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "dataset", "refined.jsonl"]


def test_a_set_in_which_nothing_failed_keeps_its_columns(tmp_path):
    from datasets import load_dataset

    write_jsonl(tmp_path / "refined.jsonl", EXAMPLES[1:])
    write_dataset(
        tmp_path / "refined.jsonl", tmp_path / "d", card(config(), STATS, {"before": None, "after": None}, "abc123", TEMPLATES)
    )
    rows = load_dataset(str(tmp_path / "d"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.features["reason"].dtype == "string" and rows["reason"][:] == [None] * 4


def test_the_card_names_model_revision_templates_sampling_and_fallback():
    text = card(config(), STATS, {"before": 9.0, "after": 0.5}, "abc123", TEMPLATES)
    front = yaml.safe_load(text.split("---")[1])
    assert front["configs"][0]["data_files"][0]["path"] == "data/*.parquet"
    for piece in ("owner/model", "0123abc", "abc123", "owner/set", "empty 1", "9.000 before, 0.500 after", "vllm, bf16"):
        assert piece in text, piece
    for piece in ("Say: {{ trace }}", "temperature: 0.6", "top_p: 0.95", "overthinking_tokens: 5000"):
        assert piece in text, piece
    assert "/home/somebody" not in text and SECRET not in text


def test_a_card_of_a_set_that_nobody_rewrote_says_so():
    cfg = config()
    cfg.refine.strategy = "vanilla"
    text = card(cfg, STATS, {"before": 9.0, "after": 9.0}, "abc123", {})
    assert "nothing was generated" in text and "refined by" not in text and "vllm" not in text
