"""Keys of `evaluation`, `probes` and `judge`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from dgr_lightning.config.setting import AUTO, EVALUATION, NEVER, TRAINING, Auto, setting


@dataclass
class EvaluationConfig:
    """The evaluation of base and tuned model, with the same prompts, seeds and budget."""

    name: str = setting("", "short name", private=False, hashed=NEVER)
    tasks: list[str] = setting([], "task names", private=False, hashed=EVALUATION)
    seed: int = setting(0, "seed of sampling and of the choice under limit; independent of seed", low=0, hashed=EVALUATION)
    samples: int = setting(1, "samples a problem; pass@1 is averaged over them", low=1, hashed=EVALUATION)
    limit: Optional[int] = setting(None, "problems a task; null: all", low=1, hashed=EVALUATION)
    temperature: float = setting(0.6, "sampling temperature; 0 is greedy", low=0.0, high=10.0, hashed=EVALUATION)
    top_p: float = setting(0.95, "nucleus sampling", above=0.0, high=1.0, hashed=EVALUATION)
    top_k: int = setting(
        0, "sample from so many of the most probable tokens, before top_p; 0: from all", low=0, hashed=EVALUATION, added=True
    )
    max_new_tokens: int = setting(32768, "tokens an output may take, thinking included", low=1, hashed=EVALUATION)
    path: dict[str, str] = setting(
        {}, "local copy of a task's data, such as evaluation.path.gsm8k=gsm8k.jsonl", private=True, hashed=NEVER
    )


@dataclass
class ProbesConfig:
    """In-training evaluation: small generations with the current weights, on problems that the evaluation never uses."""

    tasks: list[str] = setting([], "tasks, drawn from their probe split", private=False, hashed=TRAINING)
    every: int | Auto = setting(
        AUTO, "optimizer steps between probes; 0: no probes; auto: a fifth of the training's steps", low=0, hashed=TRAINING
    )
    size: int = setting(16, "problems a task", low=1, hashed=TRAINING)
    max_new_tokens: int = setting(2048, "tokens an output may take", low=1, hashed=TRAINING)
    temperature: float | Auto = setting(
        AUTO,
        "sampling temperature; 0 is greedy; auto: as the model's authors say in its generation_config.json",
        low=0.0,
        high=10.0,
        hashed=TRAINING,
        added=True,
        neutral=0.0,
    )
    top_p: float | Auto = setting(
        AUTO, "nucleus sampling; auto: as for temperature", above=0.0, high=1.0, hashed=TRAINING, added=True, neutral=1.0
    )
    top_k: int | Auto = setting(
        AUTO, "sample from so many tokens; 0: from all; auto: as for temperature", low=0, hashed=TRAINING, added=True, neutral=0
    )
    path: dict[str, str] = setting(
        {}, "local copy of a probe task's data, such as probes.path.gsm8k=gsm8k-train.jsonl", private=True, hashed=NEVER
    )


@dataclass
class JudgeConfig:
    """The judge: whether an answer refuses, whether it is harmful."""

    name: str = setting(
        "keywords",
        "keywords: a phrase list, a cheap proxy; qwen3guard and others: a guard model",
        private=False,
        hashed=EVALUATION,
    )
    phrases: Optional[str] = setting(
        None,
        "text file with refusal phrases, one a line; null: the shipped list",
        private=True,
        hashed=EVALUATION,
    )
    model: Optional[str] = setting(
        None,
        "folder or hub id of the guard's model; null: the published one",
        private=True,
        hashed=EVALUATION,
        added=True,
    )
    revision: Optional[str] = setting(
        None, "commit of the guard's model on the hub; null: its newest", private=False, hashed=EVALUATION, added=True
    )
    controversial: str = setting(
        "harmful",
        "what Qwen3Guard's Controversial counts as: its strict mode, or safe, its loose one",
        choices=("harmful", "safe"),
        hashed=EVALUATION,
        added=True,
    )
