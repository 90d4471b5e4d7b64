"""The schema of `conf/`: every key, its type, its range and its sentence.

YAML is for people; these dataclasses are what the code past the door takes. `door` merges the composed YAML into `Config`,
checks it and hands it on: nothing further down ever sees a DictConfig. This module imports nothing heavy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Optional


def setting(
    default: Any,
    sentence: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """A config field with its help sentence and what values it takes: low <= value <= high, or above < value, or choices."""
    metadata = {"help": sentence, "low": low, "high": high, "above": above, "choices": choices}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: default.copy(), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class ModelConfig:
    """The target model: the one that rewrites the safety set and is then trained on it."""

    name: str = setting("", "short name, part of a run's directory name")
    hub_id: Optional[str] = setting(None, "id on the Hugging Face hub")
    revision: Optional[str] = setting(None, "pinned commit of hub_id")
    path: Optional[str] = setting(None, "local Hugging Face folder to use instead of hub_id")
    recipe: Optional[str] = setting(None, "name of a model that the project grows from nothing", choices=("micro",))
    seed: int = setting(0, "seed of the recipe's pretraining", low=0)
    language: str = setting("natural", "language of its prompts; data and tasks must speak it", choices=("natural", "micro"))
    chat_style: str = setting("auto", "how it marks thinking; auto reads it off the tokenizer", choices=("auto", "think", "s1"))
    trust_remote_code: bool = setting(
        False, "run code shipped in the model's repository (off: a model that needs it is refused)"
    )


@dataclass
class FieldsConfig:
    """Which column of a row holds what; a column named here must be in the rows.

    Null takes the column of the key's own name where the rows have it (`id` does not: null is the row's index): `prompt` with
    `response` (think marks inside), else with `trace` and `answer`, and `label` if there is one. Naming `response` and any of
    `trace`, `answer`, `constant_trace`, `answer_after` exclude each other.
    """

    id: Optional[str] = setting(None, "column with the row's id; without one, the row's index")
    prompt: Optional[str] = setting(None, "column with the user's prompt")
    response: Optional[str] = setting(None, "column with trace and answer, told apart by think marks")
    trace: Optional[str] = setting(None, "column with the trace alone; an empty one is valid")
    answer: Optional[str] = setting(None, "column with the answer alone")
    label: Optional[str] = setting(None, "column that says harmful or benign")
    constant_trace: Optional[str] = setting(None, "one trace for every row, where the set has none")
    answer_after: Optional[str] = setting(None, "keep of the answer column only what follows this text")
    labels: dict[str, str] = setting(
        {}, "values of the label column that mean harmful or benign, such as {vanilla_benign: benign}"
    )
    default_label: str = setting("harmful", "label of a row that has none", choices=("harmful", "benign"))


@dataclass
class BenignConfig:
    """Where benign rows come from; null: the rows of the set itself that are labelled benign."""

    hub_id: Optional[str] = setting(None, "dataset id on the hub")
    revision: Optional[str] = setting(None, "pinned commit of hub_id")
    split: str = setting("train", "split of the hub dataset")
    path: Optional[str] = setting(None, "local file (jsonl, json, csv, parquet)")
    fields: FieldsConfig = field(default_factory=FieldsConfig)


@dataclass
class DataConfig:
    """The source set: somebody else's (prompt, trace, answer) rows."""

    name: str = setting("", "short name; becomes the source and the id prefix of every example")
    hub_id: Optional[str] = setting(None, "dataset id on the hub")
    revision: Optional[str] = setting(None, "pinned commit of hub_id")
    split: str = setting("train", "split of the hub dataset")
    path: Optional[str] = setting(None, "local copy (jsonl, json, csv, parquet) to use instead of hub_id")
    recipe: Optional[str] = setting(
        None, "name of a set that the project writes itself", choices=("micro-directrefusal", "micro-r1act")
    )
    language: Optional[str] = setting(None, "language of its prompts; null goes with any model", choices=("natural", "micro"))
    keep: dict[str, Optional[str]] = setting(
        {}, "use only rows whose column has this value, such as {label: vanilla_harmful}; null: any value"
    )
    first: Optional[int] = setting(None, "use only the first so many rows (after keep)", low=1)
    limit: Optional[int] = setting(None, "final number of examples, benign ones included; null: all", low=1)
    benign_ratio: float = setting(0.0, "share of benign examples in the final set (0.25 = one in four)", low=0.0, high=0.95)
    fields: FieldsConfig = field(default_factory=FieldsConfig)
    benign: BenignConfig = field(default_factory=BenignConfig)


@dataclass
class RefineConfig:
    """The refinement strategy: what the target model does to the source set before it is trained on it."""

    name: str = setting("", "short name, part of a run's directory name")
    strategy: str = setting(
        "dgr",
        "how examples are rewritten",
        choices=("vanilla", "dgr", "sdft", "thinksafe", "filters-only", "length-matched"),
    )
    seed: int = setting(0, "seed of the sampling noise; independent of seed", low=0)
    temperature: float = setting(0.6, "sampling temperature; 0 is greedy", low=0.0, high=10.0)
    top_p: float = setting(0.95, "nucleus sampling: the smallest set of tokens with this probability", above=0.0, high=1.0)
    max_new_tokens: int = setting(8192, "tokens a rewrite may take, thinking included", low=1)
    tries: int = setting(1, "samples drawn: one after another until one is accepted, or all with select=nll", low=1)
    select: str = setting(
        "first",
        "first: the first accepted try; nll: of all tries, the accepted one likeliest to the target",
        choices=("first", "nll"),
    )
    thinking: bool = setting(True, "let the model think while it rewrites, and keep what follows the close of thinking")
    view: str = setting(
        "question", "what the templates show: question and part, or the part alone", choices=("question", "part")
    )
    parts: list[str] = setting(["trace", "answer"], "what dgr rewrites; [trace] or [answer] alone is a control arm")
    trace_template: Optional[str] = setting(None, "text file with dgr's trace template; null: the shipped one")
    answer_template: Optional[str] = setting(None, "text file with dgr's answer template; null: the shipped one")
    response_template: Optional[str] = setting(None, "text file with the template of sdft or thinksafe; null: the shipped one")
    meta_thinking: Optional[str] = setting(None, "text file with meta-thinking phrases, one a line; null: the shipped one")
    overthinking_tokens: int = setting(5000, "a kept text longer than this, in the target's tokens, has overthought", low=1)
    fallback_unit: str = setting(
        "example", "what falls back when a part fails: the whole example, or the part", choices=("example", "part")
    )
    on_failure: str = setting("keep", "what becomes of an example whose rewrite failed", choices=("keep", "drop"))
    fraction: float = setting(1.0, "share of the set that is rewritten; the rest passes through", low=0.0, high=1.0)
    arm: str = setting("rewrites", "which half of the length-matched comparison this is", choices=("rewrites", "originals"))
    checks: list[str] = setting(
        ["unfinished", "empty", "think_marks", "overthinking", "meta_thinking", "refusal_lost"],
        "quality checks, in this order; the first that fails is the reason",
    )


_GENERATION = ("seed", "temperature", "top_p", "max_new_tokens", "tries", "select", "thinking")
_QUALITY = ("meta_thinking", "overthinking_tokens", "checks")
_DGR = (*_GENERATION, *_QUALITY, "view", "parts", "trace_template", "answer_template")
REFINE_KEYS: dict[str, tuple[str, ...]] = {
    "vanilla": (),
    "dgr": (*_DGR, "fallback_unit", "on_failure", "fraction"),
    "sdft": (*_GENERATION, *_QUALITY, "response_template", "on_failure", "fraction"),
    "thinksafe": (*_GENERATION, *_QUALITY, "response_template", "on_failure", "fraction"),
    "filters-only": (*_QUALITY, "on_failure"),
    "length-matched": (*_DGR, "arm"),
}
"""Which keys of `refine` a strategy reads, besides name and strategy: the others have no say in what it makes."""


def read_by_strategy(refine: RefineConfig) -> RefineConfig:
    """Returns a config in which every key that the strategy does not read has its default value."""
    read = {key: getattr(refine, key) for key in REFINE_KEYS[refine.strategy]}
    return RefineConfig(name=refine.name, strategy=refine.strategy, **read)


@dataclass
class EngineConfig:
    """What generates and scores. Only name and precision have a say in what comes out."""

    name: str = setting(
        "auto",
        "auto takes vllm where it is installed and has its device, else transformers",
        choices=("auto", "transformers", "vllm", "server", "ray"),
    )
    precision: str = setting(
        "auto", "type of the computation; auto: bf16 where the machine has it", choices=("auto", "bf16", "fp32")
    )
    batch_size: int = setting(
        128, "sequences decoded together at most, on each engine; requests under way at once, on a server", low=1
    )
    tensor_parallel: int = setting(1, "devices that one engine's weights are split over (vllm, ray)", low=1)
    replicas: Optional[int] = setting(
        None, "engines side by side (vllm, ray); null: one per GPU or tensor-parallel group", low=1
    )
    max_length: Optional[int] = setting(
        None, "tokens of prompt and output together (vllm, server, ray); null: what model and memory allow", low=16
    )
    memory: float = setting(0.9, "share of each GPU's memory that an engine takes (vllm, ray)", above=0.0, high=1.0)
    cpu_cache_gib: int = setting(1, "GiB for keys and values where vLLM runs on a CPU", low=1)
    compile: bool = setting(True, "compile the model and capture CUDA graphs (vllm, ray): a slower start, faster tokens")
    url: Optional[str] = setting(None, "address of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1")
    served_model: Optional[str] = setting(None, "name of the model on the server; null: the only one that it serves")
    timeout_seconds: float = setting(600.0, "seconds that one request to a server may take", above=0.0)
    retries: int = setting(6, "times a request to a server is sent again after a passing failure, ever later", low=0)
    ray_address: Optional[str] = setting(None, "Ray cluster to join; null: RAY_ADDRESS, else one is started on this machine")

    @property
    def identity(self) -> str:
        """What completions are filed under: the engine and, of a server, the model that it was asked for."""
        return self.name if self.served_model is None else f"{self.name} {self.served_model}"


@dataclass
class ShiftConfig:
    """What is measured of the distribution gap besides training: it changes nothing about the trained model."""

    limit: Optional[int] = setting(1000, "examples whose NLL is measured, the same before and after; null: all", low=1)
    embedding: Optional[str] = setting(
        None, "embedding similarity: target (its own hidden states), or the folder of an embedding model; null: not measured"
    )
    tuned: Optional[str] = setting(
        None, "refine.py: folder of a tuned model to compare with the target; train.py takes its own"
    )
    prompts: int = setting(
        0, "prompts a kind on which base and tuned are compared: KL and, with embedding, outputs; 0: none", low=0
    )
    max_new_tokens: int = setting(1024, "tokens of a trace that the base writes for the KL", low=1)
    seed: int = setting(0, "seed of the traces that the base writes for the KL", low=0)


@dataclass
class TuningConfig:
    """Which weights are trained: all of them, or adapters of low rank beside a frozen model."""

    method: str = setting(
        "full",
        "full: every weight; lora: adapters beside a frozen model; qlora: beside one whose matrices have 4 bits",
        choices=("full", "lora", "qlora"),
    )
    rank: int = setting(16, "rank of an adapter", low=1)
    alpha: float = setting(32.0, "what an adapter adds is multiplied by alpha / rank", above=0.0)
    dropout: float = setting(0.0, "dropout on what goes into an adapter", low=0.0, high=0.9)
    target_modules: list[str] = setting(
        ["all-linear"], "linear layers with an adapter, by the end of their name, such as [up_proj]; all-linear: every one"
    )
    layers: Optional[str] = setting(
        None, "decoder layers with adapters: 16-31 (from 0, both included) or 33%-67% of the depth; null: all"
    )
    quant_storage: str = setting(
        "auto",
        "qlora: type that the 4-bit weights are packed into, no part of the result; auto: the computation's",
        choices=("auto", "bf16", "fp32", "uint8"),
    )


_ADAPTERS = ("rank", "alpha", "dropout", "target_modules", "layers")
TUNING_KEYS: dict[str, tuple[str, ...]] = {"full": (), "lora": _ADAPTERS, "qlora": (*_ADAPTERS, "quant_storage")}
"""Which keys of `tuning` a method reads, besides method: the others have no say in what is trained."""

LAYER_RANGE = re.compile(r"(\d+)-(\d+)|(\d+(?:\.\d+)?)%-(\d+(?:\.\d+)?)%")
"""What `tuning.layers` looks like: first and last layer, or from which to which share of the depth."""

OPTIMIZERS: dict[str, str | None] = {
    "adamw": None,
    "adamw8bit": "bitsandbytes",
    "paged-adamw": "bitsandbytes",
    "paged-adamw8bit": "bitsandbytes",
    "adamw8bit-torchao": "torchao",
    "muon": None,
}
"""The choices of `sft.optimizer`, and the package beyond PyTorch that brings each."""


@dataclass
class SftConfig:
    """The training recipe: it determines the trained model, and nothing of the machine is in it but max_tokens."""

    lr: float = setting(1e-5, "peak learning rate", above=0.0, high=1.0)
    epochs: int = setting(5, "passes over the set", low=1)
    max_steps: Optional[int] = setting(None, "stop after so many optimizer steps; null: epochs decides", low=1)
    batch_size: int = setting(8, "examples per optimizer step over all ranks", low=1)
    max_length: int = setting(16384, "tokens per example; a longer one loses the end of its trace, never its answer", low=8)
    max_tokens: int = setting(8192, "capacity of a packed row: memory, not recipe", low=8)
    optimizer: str = setting(
        "adamw",
        "adamw8bit and paged ones are bitsandbytes' (no fsdp); muon takes the decoder's matrices, AdamW the rest",
        choices=tuple(OPTIMIZERS),
    )
    weight_decay: float = setting(1e-4, "decoupled weight decay on matrices", low=0.0, high=10.0)
    warmup_ratio: float = setting(
        0.1, "share of the steps that the learning rate rises; then a cosine to zero", low=0.0, high=1.0
    )
    clip_norm: float = setting(1.0, "largest norm of the gradient", above=0.0)
    select: Optional[str] = setting(
        None,
        "which weights become the model: those where this curve of the probes is highest, such as probe/reasoning_accuracy; "
        "null: those of the last step",
    )


@dataclass
class TrainerConfig:
    """Where and how training runs. Nothing here but precision changes the trained model."""

    name: str = setting("auto", "short name")
    accelerator: str = setting("auto", "auto: a CUDA device where there is one", choices=("auto", "cpu", "cuda"))
    strategy: str = setting(
        "auto",
        "single: one device; ddp: each device has the whole model; fsdp: each has a shard of it; auto: fsdp on several",
        choices=("auto", "single", "ddp", "fsdp"),
    )
    devices: Optional[int] = setting(None, "devices per node, each with a process; null: every GPU, or one CPU process", low=1)
    nodes: int = setting(1, "machines; more than one are started by torchrun, on each of them", low=1)
    precision: str = setting("auto", "type of the computation; master weights stay fp32", choices=("auto", "bf16", "fp32"))
    recompute_every: int = setting(
        0, "activation checkpointing: every so-many-th layer computes its activations again; 1: all, 0: none", low=0
    )
    shard_size: Optional[int] = setting(
        None, "fsdp: devices that share one copy of the weights, such as those of a node (HSDP); null: all", low=2
    )
    tensor_parallel: int = setting(
        1, "fsdp: devices that compute every row together, each with a part of every layer's matrices", low=1
    )
    compile: bool = setting(
        False, "compile the model's layers: a slower start, faster steps on a GPU (on the CPU it gains nothing)"
    )
    cpu_offload: bool = setting(False, "fsdp: weights and optimizer state lie in the machine's memory, not the GPU's")
    checkpoint_every: int = setting(50, "optimizer steps between checkpoints; 0: only the end", low=0)
    keep_checkpoints: int = setting(1, "how many of the last checkpoints are kept", low=1)
    max_restarts: int = setting(3, "times a training whose process died is taken up again from its last checkpoint", low=0)


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
    """The curves during training: small generations with the current weights, on problems that evaluation never uses."""

    tasks: list[str] = setting([], "tasks, drawn from their probe split")
    every: int = setting(50, "optimizer steps between probes; 0: no probes", low=0)
    size: int = setting(32, "problems a task", low=1)
    max_new_tokens: int = setting(4096, "tokens an output may take", low=1)
    path: dict[str, str] = setting({}, "local copy of a probe task's data, such as probes.path.gsm8k=gsm8k-train.jsonl")


@dataclass
class JudgeConfig:
    """Who says whether an answer refuses."""

    name: str = setting("keywords", "keywords: a phrase list, a cheap proxy", choices=("keywords",))
    phrases: Optional[str] = setting(None, "text file with refusal phrases, one a line; null: the shipped list")


@dataclass
class LoggerConfig:
    """Where curves go besides metrics.csv."""

    name: str = setting("csv", "csv alone, or wandb too", choices=("csv", "wandb"))
    project: str = setting("dgr-lightning", "W&B project")
    entity: Optional[str] = setting(None, "W&B team or user; null: your default")
    group: Optional[str] = setting(None, "W&B group; null: the run's name")


@dataclass
class Config:
    """A whole run."""

    seed: int = setting(1, "draws the subset, orders the data, drives training", low=0)
    name: str = setting("dgr", "experiment name: runs/<name>/…; letters, digits, '.', '_' and '-'")
    overwrite: bool = setting(False, "start anew where a run of the same config exists")
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    shift: ShiftConfig = field(default_factory=ShiftConfig)
    tuning: TuningConfig = field(default_factory=TuningConfig)
    sft: SftConfig = field(default_factory=SftConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    probes: ProbesConfig = field(default_factory=ProbesConfig)
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
