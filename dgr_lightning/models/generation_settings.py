"""How the authors of a model say that it should be sampled: the generation_config.json of its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgr_lightning.errors import UserError
from dgr_lightning.models.folder import read_object

GENERATION_CONFIG = "generation_config.json"


@dataclass(frozen=True)
class AuthorsSampling:
    """Sampling as a model's authors ask for it; the defaults are greedy.

    Attributes:
        temperature: 0 is greedy.
        top_p: nucleus sampling; 1: the whole vocabulary.
        top_k: most probable tokens to choose from; 0: all.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0


def authors_sampling(folder: Path) -> AuthorsSampling:
    """Returns the sampling that a folder asks for; greedy where it has no such file, or one without `do_sample`.

    R1-Distill asks for temperature 0.6 and top_p 0.95, and loops under greedy decoding (DeepSeek-R1's README: 0.5 to 0.7).

    Raises:
        UserError: a value is none that can be sampled with.
    """
    if not (folder / GENERATION_CONFIG).is_file():
        return AuthorsSampling()
    settings = read_object(folder / GENERATION_CONFIG, str(folder))
    if settings.get("do_sample") is not True:
        return AuthorsSampling()
    temperature = _number(folder, settings, "temperature", 1.0, 0.0, 10.0)
    top_p = _number(folder, settings, "top_p", 1.0, 0.0, 1.0)
    top_k = _number(folder, settings, "top_k", 0, -1, 2**31)
    return AuthorsSampling(float(temperature), float(top_p) or 1.0, max(0, int(top_k)))


def _number(folder: Path, settings: dict[str, Any], name: str, default: float, low: float, high: float) -> float:
    value = settings.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise UserError(
            f"{folder}: {GENERATION_CONFIG} has {name}={str(value)[:40]!r}, which is none from {low:g} to {high:g}. Copy the "
            "file from the model's repository, or write probes.temperature=0.6 probes.top_p=0.95 probes.top_k=0."
        )
    return value
