"""The refined set as a Hugging Face dataset folder: parquet shards and a card that says how they were made.

`load_dataset("<run>/dataset")` reads it, and so does the hub once it is uploaded. The card holds figures and templates, no text
of any example.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dgr_lightning import cards
from dgr_lightning.config import Config
from dgr_lightning.config.shareable import shareable
from dgr_lightning.files import whole_folder
from dgr_lightning.hashes import content_hash
from dgr_lightning.number_format import nats
from dgr_lightning.refinement.meta_thinking import MetaThinking
from dgr_lightning.refinement.outcome import RefinementStats
from dgr_lightning.refinement.strategy import strategy_of
from dgr_lightning.writing import writing

FOLDER = "dataset"
# Rows of one parquet file: a shard of long traces stays well under the hub's recommended 5 GB.
_ROWS_PER_FILE = 50_000
_COLUMNS = ("id", "prompt", "trace", "answer", "label", "source", "refined", "reason")


def write_dataset(refined: Path, folder: Path, card_text: str) -> None:
    """Writes the folder; it gets its name when it is complete, and replaces an earlier one.

    Args:
        refined: the run's `refined.jsonl`.
        folder: where the dataset goes.
        card_text: from `card`.
    """
    import tempfile

    from datasets import Dataset, Features, Value, disable_progress_bars, enable_progress_bars

    features = Features({name: Value("bool" if name == "refined" else "string") for name in _COLUMNS})
    disable_progress_bars()
    try:
        with whole_folder(folder) as partial, tempfile.TemporaryDirectory() as scratch:
            with writing(Path(scratch)):
                rows = Dataset.from_json(str(refined), features=features, cache_dir=scratch)
            assert isinstance(rows, Dataset)
            num_files = max(1, -(-len(rows) // _ROWS_PER_FILE))
            (partial / "data").mkdir()
            for number in range(num_files):
                part = rows.shard(num_files, number, contiguous=True)
                part.to_parquet(partial / "data" / f"train-{number:05d}-of-{num_files:05d}.parquet")
            del rows  # before the scratch folder, which it is mapped from, is deleted
            (partial / "README.md").write_text(card_text, encoding="utf-8")
    finally:
        enable_progress_bars()


def card(
    cfg: Config,
    stats: RefinementStats,
    nll: Mapping[str, float | None],
    model_hash: str,
    templates: Mapping[str, str],
) -> str:
    """Returns the dataset card: the hub's YAML header, and how the set was made, in words and figures.

    Args:
        cfg: the run.
        stats: figures of the refinement.
        nll: `before` and `after`, mean nats per target token under the target.
        model_hash: hash of the target's content.
        templates: name → text of the templates that the target was prompted with; empty where nothing was generated.
    """
    front = {
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}],
        "task_categories": ["text-generation"],
        "tags": ["safety", "reasoning", "refusal", "synthetic", cfg.refine.strategy],
    }
    model, source = shareable(cfg.model.hub_id or cfg.model.name), cfg.data.origin
    engine = f"{shareable(cfg.engine.identity)}, {cfg.engine.precision}"
    strategy = shareable(cfg.refine.name or cfg.refine.strategy)
    kept = sum(stats.fallback.values())
    before, after = (nats(nll[when], "unknown") for when in ("before", "after"))
    fallback = ", ".join(f"{reason} {count}" for reason, count in stats.fallback.items()) or "none"
    return cards.compose_card(
        front,
        f"{source}, {'refined by' if templates else 'for'} {model} ({strategy})",
        "A safety set for supervised fine-tuning of a reasoning model. It holds harmful prompts; the answers to them are\n"
        f"meant to refuse. Rows with `refined` true are text of {cards.plain(model)} itself; the others are as the source has\n"
        "them, and `reason` says why.",
        {
            "target model": f"{model}, revision {shareable(cfg.model.revision) or 'not pinned'}, content {model_hash}",
            "source set": cfg.data.pinned,
            "examples": f"{stats.examples} in the source, {stats.refined} refined",
            "fallback": f"{kept} ({fallback})",
            "target tokens": f"{stats.tokens_before} before, {stats.tokens_after} after",
            "NLL under the target, nats per token": f"{before} before, {after} after",
            "generated with": engine if templates else "nothing was generated",
        },
        _settings(cfg),
        {f"Template {name}": cards.code_block("jinja", text.rstrip("\n")) for name, text in templates.items()},
    )


def _settings(cfg: Config) -> dict[str, Any]:
    """Returns what the strategy reads, without paths of this machine: a content hash stands for the meta-thinking list.

    Templates are left out: the card has their text.
    """
    strategy = strategy_of(cfg.refine)
    read = {key: getattr(strategy.refine, key) for key in strategy.keys if key not in strategy.shipped_texts}
    if "meta_thinking" in strategy.keys:
        read["meta_thinking"] = content_hash(MetaThinking.load(strategy.refine.meta_thinking).entries)
    if strategy.options is not None:
        read["options"] = {name: _without_path(value) for name, value in asdict(strategy.options).items()}
    described = {"refine": {"strategy": cfg.refine.strategy} | read, "data": {"limit": cfg.data.limit, "seed": cfg.seed}}
    shared: dict[str, Any] = shareable(described)
    return shared


def _without_path(option: Any) -> Any:
    """Returns an option's value, or the content hash of one that may be a path or hold one."""
    return option if option is None or isinstance(option, (int, float)) else content_hash(option)
