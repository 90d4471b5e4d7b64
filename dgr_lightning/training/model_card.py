"""The card of a trained model, which the hub shows: its base model, its source set, and its recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from dgr_lightning import cards
from dgr_lightning.config import Config
from dgr_lightning.config.shareable import shareable


def model_card(cfg: Config, run_hash: str, training: Mapping[str, Any], *, rewritten: bool) -> str:
    """Returns the text of `README.md` beside the weights: the hub's YAML header, and the recipe in words and figures.

    It names no path of this machine. Evaluation results are not in it, since they are measured later, on the exported folder.

    Args:
        cfg: of the run.
        run_hash: identity of the run.
        training: `training` of summary.json.
        rewritten: whether any example holds text by the model itself.
    """
    base, source = shareable(cfg.model.hub_id or cfg.model.name), cfg.data.origin
    front: dict[str, Any] = {"pipeline_tag": "text-generation", "library_name": "transformers"}
    front |= {"base_model": shareable(cfg.model.hub_id)} if cfg.model.hub_id else {}
    front |= {"datasets": shareable(cfg.data.hub_ids)} if cfg.data.hub_ids else {}
    front["tags"] = ["safety", "reasoning", "sft", cfg.refine.strategy]
    sft = {key: value for key, value in asdict(cfg.sft).items() if key != "max_tokens"}  # no part of the recipe
    settings = shareable({"sft": sft, "tuning": asdict(cfg.tuning), "seed": cfg.seed})
    steps, tokens = training["steps"], training["target_tokens"]
    strategy = shareable(cfg.refine.name or cfg.refine.strategy)
    refined = f"refined by the model itself ({cards.plain(cfg.refine.strategy)})" if rewritten else "with its texts as they are"
    return cards.compose_card(
        front,
        f"{base}, safety-tuned on {source} ({strategy})",
        f"{cards.plain(base)} after supervised fine-tuning on {cards.plain(source)}, {refined}.\n"
        "It is meant to refuse harmful requests and to reason as before; how far it does is in `summary.json` and\n"
        "`report.html` of the run that made it.",
        {
            "base model": f"{base}, revision {shareable(cfg.model.revision) or 'not pinned'}",
            "source set": cfg.data.pinned,
            "refinement": strategy,
            "training": f"{steps} steps, {tokens:,} target tokens, computed in {cfg.trainer.precision}",
            "loss": f"{training['loss_first']:.4f} at the first step, {training['loss_last']:.4f} at the last",
            "run": run_hash,
        },
        settings,
    )
