"""Keys of `evaluation`, `probes` and `judge`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from dgr_lightning.config.setting import AUTO, EVALUATION, NEVER, TRAINING, Auto, setting


@dataclass
class EvaluationConfig:
    """The evaluation of base and tuned model, with the same prompts, seeds and budget."""

    name: str = setting("", "short name", private=False, hashed=NEVER)
    tasks: list[str] = setting([], "task names", private=False, hashed=EVALUATION)
    missing: str = setting(
        "fail",
        "where a task's data cannot be read: fail, or skip it and measure the rest; its kind has no headline then",
        choices=("fail", "skip"),
        private=False,
        hashed=NEVER,
    )
    skipped: list[str] = setting(
        [],
        "tasks that evaluation.missing=skip has left out; written by the project, not by you",
        private=False,
        hashed=EVALUATION,
        added=True,
    )
    seed: int = setting(0, "seed of sampling and of the choice under limit; independent of seed", low=0, hashed=EVALUATION)
    samples: int = setting(1, "samples a problem; pass@1 is averaged over them", low=1, hashed=EVALUATION)
    limit: Optional[int] = setting(None, "problems a task; null: all", low=1, hashed=EVALUATION)
    temperature: float = setting(0.6, "sampling temperature; 0 is greedy", low=0.0, high=10.0, hashed=EVALUATION)
    top_p: float = setting(0.95, "nucleus sampling", above=0.0, high=1.0, hashed=EVALUATION)
    top_k: int = setting(
        0, "sample from so many of the most probable tokens, before top_p; 0: from all", low=0, hashed=EVALUATION, added=True
    )
    max_new_tokens: int = setting(32768, "tokens an output may take, thinking included", low=1, hashed=EVALUATION)
    repetition_penalty: float = setting(
        1.0,
        "divides the logits of tokens that prompt or output hold already, as in transformers; 1: none",
        above=0.0,
        high=10.0,
        hashed=EVALUATION,
        added=True,
    )
    thinking_tokens: Optional[int] = setting(
        None,
        "tokens after which a thought that is still open is closed for the model, which then answers; null: never",
        low=1,
        hashed=EVALUATION,
        added=True,
    )
    by_kind: dict[str, dict[str, Any]] = setting(
        {},
        "other values for a kind of task, such as {harmful: {temperature: 0, max_new_tokens: 1024}}",
        private=False,
        hashed=EVALUATION,
        added=True,
    )
    by_task: dict[str, dict[str, Any]] = setting(
        {},
        "other values for one task, such as {aime24: {samples: 64}}; stronger than by_kind",
        private=False,
        hashed=EVALUATION,
        added=True,
    )
    prompts: dict[str, Optional[str]] = setting(
        {},
        "wording of a task's prompts, a text with {question}, and with {options} where there are some; null: the task's own",
        private=True,
        hashed=EVALUATION,
        added=True,
    )
    system_prompt: Optional[str] = setting(
        None,
        "system message before every prompt of the evaluation; null: model.system_prompt",
        private=True,
        hashed=EVALUATION,
        added=True,
    )
    prefill: Optional[str] = setting(
        None,
        "zerothink: an empty thought is opened and closed for the model; lessthink: one short sentence; any other text: the "
        "thought begins with it",
        private=True,
        hashed=EVALUATION,
        added=True,
    )
    attack: Optional[str] = setting(
        None,
        "published attack on harmful tasks; gcg: a suffix that was found on other models",
        private=False,
        hashed=EVALUATION,
        added=True,
    )
    attack_path: Optional[str] = setting(
        None, "text file of an attack of your own, with {{ question }}, in place of attack", private=True, hashed=NEVER
    )
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
    """The judge: whether an output refuses, whether it is harmful. Which keys a judge reads stands in its file."""

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
    part: str = setting(
        "answer",
        "what of an output a guard judges; both: answer and trace, each by itself; whole: one after the other as a single text",
        choices=("answer", "trace", "both", "whole"),
        hashed=EVALUATION,
        added=True,
    )
    # Not hashed as a key, since it may hold paths: every judge is described by itself (pipeline/identity.py).
    also: list[JudgeConfig] = setting(
        [],
        "further judges at once, such as [keywords, {judge: chat, url: …}]: a choice of judge=, or one with keys over its YAML",
        private=True,
        hashed=NEVER,
        added=True,
    )
    url: Optional[str] = setting(
        None,
        "address of the OpenAI-compatible server of a judge (chat, strongreject), such as http://127.0.0.1:8000/v1",
        private=True,
        hashed=NEVER,
        added=True,
    )
    served_model: Optional[str] = setting(
        None, "name of the judge's model on that server", private=True, hashed=EVALUATION, added=True
    )
    api_key_variable: str = setting(
        "OPENAI_API_KEY",
        "environment variable that holds the server's key, if it needs one",
        private=True,
        hashed=NEVER,
        added=True,
    )
    template: Optional[str] = setting(
        None,
        "what chat asks its model: judge_chat, xstest, or a text file of your own; null: judge_chat",
        private=True,
        hashed=EVALUATION,
        added=True,
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
    threshold: float = setting(
        0.5, "score from which an output counts as harmful (strongreject)", low=0.0, high=1.0, hashed=EVALUATION, added=True
    )
    max_new_tokens: int = setting(
        1024,
        "tokens that a judge may write about a text; one that runs into them has no verdict",
        low=1,
        hashed=EVALUATION,
        added=True,
    )
    batch_size: int = setting(16, "texts that a judge's server is asked about at once", low=1, hashed=NEVER, added=True)
    timeout_seconds: float = setting(
        120.0, "seconds that one request to a judge's server may take", above=0.0, hashed=NEVER, added=True
    )
    retries: int = setting(
        6, "times such a request is sent again after a transient failure, with growing pauses", low=0, hashed=NEVER, added=True
    )
