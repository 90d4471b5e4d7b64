"""Headers of stores: everything that stored completions depend on besides their keys. A store's folder is named by its hash.

How tokens are sampled is both there and in what an engine is asked, so both are made here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dgr_lightning.config import EngineConfig, EvaluationConfig, RefineConfig
from dgr_lightning.engines.engine import Sampling
from dgr_lightning.engines.registry import ENGINES
from dgr_lightning.tasks.settings import TaskSettings

Section = RefineConfig | EvaluationConfig | TaskSettings


def store_header(
    version: int, model_hash: str, chat: Mapping[str, Any], engine: EngineConfig, **generation: Any
) -> dict[str, Any]:
    """Returns the header of a store; equal headers share what is stored.

    Args:
        version: of the code that builds the prompts.
        model_hash: content hash of the model.
        chat: `Chat.identity`.
        engine: its name and precision are values, not `auto`.
        generation: the prompts and the sampling, JSON-able.
    """
    assert "auto" not in (engine.name, engine.precision), "cli/ resolves engine.name and engine.precision"
    return {
        "version": version,
        "model": model_hash,
        **chat,
        **generation,
        "max_length": engine.max_length,
        "engine": engine.identity,
        "precision": engine.precision,
        **{f"engine_{name}": value for name, value in ENGINES.outside_code(engine.name).items()},
    }


def sampling_settings(section: Section) -> dict[str, Any]:
    """Returns the part of a header that says how tokens are sampled; what is off and came later is left out."""
    settings = {
        "temperature": section.temperature,
        "top_p": section.top_p,
        "max_new_tokens": section.max_new_tokens,
        "seed": section.seed,
    }
    settings |= {"top_k": section.top_k} if section.top_k else {}
    penalty = _penalty(section)
    return settings | ({"repetition_penalty": penalty} if penalty != 1 else {})


def sampling_of(section: Section, stop_ids: tuple[int, ...]) -> Sampling:
    """Returns how a section has tokens sampled."""
    return Sampling(
        section.temperature,
        section.top_p,
        section.max_new_tokens,
        section.seed,
        stop_ids,
        section.top_k,
        _penalty(section),
    )


def _penalty(section: Section) -> float:
    """Returns the repetition penalty, which refinement has none of."""
    return 1.0 if isinstance(section, RefineConfig) else section.repetition_penalty
