"""Keys of `evaluation`, `probes` and `judge`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from dgr_lightning.config.setting import setting


@dataclass
class EvaluationConfig:
    """What base and tuned model are measured on, with the same prompts, seeds and budget."""

    name: str = setting("", "short name")
    tasks: list[str] = setting([], "task names")
    seed: int = setting(0, "seed of sampling and of the choice under limit; independent of seed", low=0)
    samples: int = setting(1, "samples a problem; pass@1 is averaged over them", low=1)
    limit: Optional[int] = setting(None, "problems a task; null: all", low=1)
    temperature: float = setting(0.6, "sampling temperature; 0 is greedy", low=0.0, high=10.0)
    top_p: float = setting(0.95, "nucleus sampling", above=0.0, high=1.0)
    max_new_tokens: int = setting(32768, "tokens an output may take, thinking included", low=1)
    path: dict[str, str] = setting({}, "local copy of a task's data, such as evaluation.path.gsm8k=gsm8k.jsonl")


@dataclass
class ProbesConfig:
    """In-training evaluation: the current weights answer a few problems that the evaluation never uses, for curves."""

    tasks: list[str] = setting([], "tasks, drawn from their probe split")
    every: int = setting(50, "optimizer steps between probes; 0: no probes", low=0)
    size: int = setting(32, "problems a task", low=1)
    max_new_tokens: int = setting(4096, "tokens an output may take", low=1)
    path: dict[str, str] = setting({}, "local copy of a probe task's data, such as probes.path.gsm8k=gsm8k-train.jsonl")


@dataclass
class JudgeConfig:
    """What decides whether an answer refuses."""

    name: str = setting("keywords", "keywords: a phrase list, a cheap proxy; or your own package.module:Name")
    phrases: Optional[str] = setting(None, "text file with refusal phrases, one a line; null: the shipped list")
