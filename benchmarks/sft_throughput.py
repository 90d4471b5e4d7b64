"""Training speed and memory of this project beside TRL's SFTTrainer, and on GPUs beside what the device could do.

    python -m benchmarks.sft_throughput                                          # on the CPU: half an hour on two cores
    python -m benchmarks.sft_throughput --rows STAR-1.json --tokenizer FOLDER    # the same on real rows
    python -m benchmarks.sft_throughput --shapes thin --side ours                # one run: SmolLM2-135M, a minute or two
    python -m benchmarks.sft_throughput --gpu                                    # 1.5B and 7B, packed 8k, one GPU

Both sides train the same random weights on the same ids in the same order (TRL gets them tokenized and with labels): AdamW,
cosine, clipping, bf16 with fp32 weights, 8 examples per optimizer step or, where TRL packs, rows of about as many tokens. Each
run is a process, so that its peak memory is that side's. Tokens are those of the examples, without padding, and time is
measured from the end of the first step to the end of the last.

Ours is the project's `SafetySft` under Lightning. TRL's `default` is SFTTrainer with its defaults, our `max_length` and rows in
order; its `best` is the fastest of `TRL_SETTINGS`, each tried once before. Then come pairs: ours, default, best, and the next
pair in reverse. A ratio is the median over the pairs; the last line has the worse of the two configurations. `full logits`
is our step with the textbook's loss: all logits of a row at once.

On a GPU machine, Hydra, omegaconf, datasets and bitsandbytes are not needed, and TRL is measured if it is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from importlib import metadata
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for `python benchmarks/sft_throughput.py`

from dgr_lightning.processes import die_with_parent, keep_freed_memory

ROOT = Path(__file__).resolve().parent.parent
LR, MAX_LENGTH, EXAMPLES = 1e-4, 1024, 8
# SFTTrainer's default, and its options that could be faster here; 3 rows packed to 1,024 tokens are about 8 examples of STAR-1.
# Its Liger and flash attention run on GPUs only; chunked loss is its default.
PLAIN: dict[str, Any] = {"per_device_train_batch_size": EXAMPLES}
FAST = PLAIN | {"gradient_checkpointing": False}
TRL_SETTINGS: dict[str, dict[str, Any]] = {
    "default": PLAIN,
    "no recomputing": FAST,
    "one example at a time": FAST | {"per_device_train_batch_size": 1, "gradient_accumulation_steps": EXAMPLES},
    "padding-free": FAST | {"padding_free": True, "max_length": None},  # which it requires; no row is longer anyway
    "bfd": FAST | {"packing": True, "per_device_train_batch_size": 3},
    "bfd, a row at a time": FAST | {"packing": True, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 3},
    "bfd_split": FAST | {"packing": True, "packing_strategy": "bfd_split", "per_device_train_batch_size": 3},
    "wrapped": FAST | {"packing": True, "packing_strategy": "wrapped", "per_device_train_batch_size": 3},
}


@dataclass(frozen=True)
class Shape:
    """A model, and how it is trained.

    Attributes:
        vocabulary: tokens.
        width: of the hidden states.
        intermediate: width of the MLPs.
        layers: number of them.
        heads: of queries.
        groups: key-value heads.
        tied: whether the output layer is the embeddings.
        examples: per optimizer step.
        max_length: tokens of an example, and of TRL's packed rows.
        max_tokens: capacity of our packed rows.
        optimizer: `sft.optimizer`.
        family: the architecture, Qwen2 or Llama.
        lengths: made rows have lengths between these two, evenly; None: those of STAR-1.
    """

    vocabulary: int
    width: int
    intermediate: int
    layers: int
    heads: int
    groups: int
    tied: bool
    examples: int = EXAMPLES
    max_length: int = MAX_LENGTH
    max_tokens: int = 8192
    optimizer: str = "adamw"
    family: str = "Qwen2"
    lengths: tuple[int, int] | None = None


SHAPES = {
    "small": Shape(4096, 384, 1024, 5, 6, 2, tied=True),
    "large": Shape(151_936, 256, 1024, 4, 4, 1, tied=True),
    # SmolLM2-135M, whose documents get a row each; 3 rows packed to 2,048 tokens are about 4 of them.
    "thin": Shape(
        49_152,
        576,
        1536,
        30,
        9,
        3,
        tied=True,
        examples=4,
        max_length=2048,
        max_tokens=2048,
        family="Llama",
        lengths=(1000, 2000),
    ),
    # R1-Distill-Qwen; AdamW's fp32 moments of the 7B would not fit beside its weights.
    "1.5B": Shape(151_936, 1536, 8960, 28, 12, 2, tied=False, examples=64, max_length=8192),
    "7B": Shape(152_064, 3584, 18_944, 28, 28, 4, tied=False, examples=64, max_length=8192, optimizer="adamw8bit-torchao"),
}


@dataclass(frozen=True)
class Job:
    """A run, for a worker process.

    Attributes:
        shape: a name of `SHAPES`.
        side: `ours`, `full logits`, or a name of `TRL_SETTINGS`.
        rows: JSON file with [ids, number of prompt tokens] of every example, in order.
        steps: optimizer steps, of which the first is not timed.
        gpu: whether on a GPU.
        optimizer: `sft.optimizer` of our side.
        checkpointing: whether our side recomputes activations.
        processor_time: whether processor time is measured instead of elapsed time.
    """

    shape: str
    side: str
    rows: str
    steps: int
    gpu: bool
    optimizer: str
    checkpointing: bool
    processor_time: bool = False

    @property
    def clock(self) -> Callable[[], float]:
        """The clock of a run."""
        return process_time if self.processor_time else perf_counter

    def read_rows(self) -> list[tuple[list[int], int]]:
        """Returns the examples of its steps."""
        rows: list[tuple[list[int], int]] = json.loads(Path(self.rows).read_text(encoding="utf-8"))
        return rows[: SHAPES[self.shape].examples * self.steps]


@dataclass
class Run:
    """The figures of a run, one per step in each list. `ends` are the times of the steps' ends in seconds, `peak` is bytes.

    `peak_flops` is that of the device: a GPU's, if the project's table has it, or the CPU's, measured after the training.
    """

    tokens: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    peak: int = 0
    flops_per_token: float = 0.0
    peak_flops: float | None = None

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return sum(self.tokens[1:]) / (self.ends[-1] - self.ends[0])

    def share_of(self, peak: float | None) -> str:
        """Returns what it computed, as the project counts it, and its share of a peak in FLOP/s, if that is known."""
        done = self.rate * self.flops_per_token
        return f"MFU {done / peak:.1%} of {peak / 1e12:.3g} TFLOP/s" if peak else f"{done / 1e12:.0f} TFLOP/s, of unknown peak"

    def __str__(self) -> str:
        """Returns the figures in one line."""
        targets = sum(self.targets[1:]) / (self.ends[-1] - self.ends[0])
        return (
            f"{self.rate:,.0f} tokens/s ({targets:,.0f} target tokens/s), peak {self.peak / 2**20:,.0f} MiB, "
            f"loss {self.losses[0]:.4f} → {self.losses[-1]:.4f} in {len(self.losses)} steps"
        )


def main() -> int:
    """Measures and prints; returns the exit code."""
    if sys.argv[1:] == ["--worker"]:
        _run_worker()
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=Path, help="a safety set in any layout that data.readers reads; default: synthetic rows")
    parser.add_argument("--tokenizer", type=Path, help="folder of a tokenizer with a chat template, for --rows")
    parser.add_argument("--pairs", type=int, default=3, help="pairs per configuration")
    parser.add_argument("--steps", type=int, default=3, help="optimizer steps per run, of which the first is not timed")
    parser.add_argument("--shapes", help=f"comma-separated, of {', '.join(SHAPES)}; default small,large, with --gpu 1.5B,7B")
    parser.add_argument("--side", choices=["ours", "full logits", *TRL_SETTINGS], help="run this side alone, once a shape")
    parser.add_argument("--best", choices=list(TRL_SETTINGS), help="TRL's best setting, instead of trying all")
    parser.add_argument(
        "--processor-time", action="store_true", help="measure processor time: for a busy machine, with OMP_NUM_THREADS=1"
    )
    parser.add_argument("--gpu", action="store_true", help="one GPU: speed, share of its peak, memory")
    parser.add_argument("--peak-tflops", type=float, help="dense bf16 peak of the GPU, if the project's table lacks it")
    parser.add_argument("--optimizer", help="sft.optimizer of our side; default adamw, for 7B adamw8bit-torchao")
    parser.add_argument("--checkpointing", action="store_true", help="our side recomputes activations")
    args = parser.parse_args()
    if args.rows is not None and args.tokenizer is None:
        parser.error("--rows needs --tokenizer")
    print(_machine(), flush=True)
    shapes = (args.shapes or ("1.5B,7B" if args.gpu else "small,large")).split(",")
    with tempfile.TemporaryDirectory(prefix="dgr-benchmark-") as scratch:
        if args.side:
            for name in shapes:
                run = _run(_jobs(args, name, Path(scratch))(args.side, args.steps))
                print(f"{name}, {args.side}: {run}, {run.share_of(run.peak_flops)}", flush=True)
            return 0
        results = [(_measure_gpu if args.gpu else _measure_cpu)(args, name, Path(scratch)) for name in shapes]
    if args.gpu:
        return 0
    # Memory is compared where the vocabulary is large: the last shape.
    worst = {key: min(result[key] for result in results) for key in ("ratio_default", "ratio_best")}
    last = " ".join(f"{key}={value:.2f}" for key, value in worst.items())
    print(f"{last} memory_ratio={results[-1]['memory_ratio']:.2f}")
    return 0 if all(result["comparable"] for result in results) else 1


def _measure_cpu(args: argparse.Namespace, name: str, scratch: Path) -> dict[str, float]:
    jobs = _jobs(args, name, scratch)
    if args.best is None:
        tried: dict[str, Run] = {}
        for side in TRL_SETTINGS:
            tried[side] = _run(jobs(side, 2))
            print(f"  tried TRL, {side}: {tried[side]}", flush=True)
        best = max(tried, key=lambda side: tried[side].rate)
    else:
        best = args.best
    print(f"{name}: TRL's best is '{best}'")
    runs: dict[str, list[Run]] = {"ours": [], "default": [], best: []}
    for pair in range(args.pairs):
        for side in list(runs)[:: 1 if pair % 2 == 0 else -1]:
            runs[side].append(_run(jobs(side, args.steps)))
            run = runs[side][-1]
            print(f"  pair {pair + 1}, {side}: {run}, {run.share_of(run.peak_flops)}", flush=True)
    full = _run(jobs("full logits", args.steps))
    print(f"  full logits: {full}")
    ours, default = runs["ours"], runs["default"]
    comparable = all(one.losses[-1] < one.losses[0] for some in runs.values() for one in some) and (
        abs(ours[0].losses[0] / default[0].losses[0] - 1) < 0.005
    )
    peak = statistics.median(run.peak for run in ours)
    result = {
        "ratio_default": statistics.median(one.rate / other.rate for one, other in zip(ours, default, strict=True)),
        "ratio_best": statistics.median(one.rate / other.rate for one, other in zip(ours, runs[best], strict=True)),
        "memory_ratio": peak / statistics.median(run.peak for run in runs[best]),
        "full_logits_memory": peak / full.peak,
        "full_logits_speed": statistics.median(run.rate for run in ours) / full.rate,
    }
    rates = ", ".join(f"{side} {statistics.median(run.rate for run in some):,.0f}" for side, some in runs.items())
    print(f"{name}: median tokens/s: {rates}; " + " ".join(f"{key}={value:.2f}" for key, value in result.items()))
    if not comparable:
        print(f"{name}: not comparable: a loss does not fall, or the first losses of ours and default lie apart")
    return result | {"comparable": comparable}


def _measure_gpu(args: argparse.Namespace, name: str, scratch: Path) -> dict[str, float]:
    jobs = _jobs(args, name, scratch)
    for side in ("ours", "full logits", *(["default", "bfd"] if find_spec("trl") else [])):
        try:
            run = _run(jobs(side, args.steps))
        except RuntimeError as error:
            print(f"{name}, {side}: not measured: {error}", flush=True)
            continue
        peak = args.peak_tflops * 1e12 if args.peak_tflops else run.peak_flops
        print(f"{name}, {side}: {run}, {run.share_of(peak)}", flush=True)
    return {}


def _flops_per_token(model: Any, rows: Sequence[tuple[list[int], int]]) -> float:
    """Returns the floating-point operations that a training step needs for a token, as the project counts them."""
    from dgr_lightning.training.flops import ModelFlops

    tokens, targets = sum(len(ids) for ids, _ in rows), sum(len(ids) - prompt for ids, prompt in rows)
    pairs = sum(len(ids) * (len(ids) + 1) // 2 for ids, _ in rows)
    return ModelFlops.of(model).step(tokens, targets, pairs) / tokens


# --- Rows -----------------------------------------------------------------------------------------------------------------


def _jobs(args: argparse.Namespace, name: str, scratch: Path) -> Callable[[str, int], Job]:
    """Writes a shape's rows; returns a function from a side and a number of steps to a job."""
    shape = SHAPES[name]
    file = scratch / f"{name}.json"
    file.write_text(json.dumps(_rows(args, shape, shape.examples * args.steps)), encoding="utf-8")
    optimizer = args.optimizer or shape.optimizer
    return lambda side, steps: Job(name, side, str(file), steps, args.gpu, optimizer, args.checkpointing, args.processor_time)


def _rows(args: argparse.Namespace, shape: Shape, number: int) -> list[tuple[list[int], int]]:
    """Returns ids and number of prompt tokens of examples; ids are taken modulo the vocabulary of the shape."""
    if args.rows is None:
        return made_rows(shape.vocabulary, number, shape.lengths)
    from dgr_lightning.config import FieldsConfig
    from dgr_lightning.data.file_readers import columns, read_rows
    from dgr_lightning.data.row_parsing import parse_rows
    from dgr_lightning.errors import UserError
    from dgr_lightning.models.chat import Chat

    table = read_rows(args.rows)
    fields = FieldsConfig(prompt=next((name for name in ("prompt", "question") if name in columns(table)), None))
    examples, _ = parse_rows(list(enumerate(table)), fields, "rows", key="--rows", default_label="harmful")
    try:
        chat = Chat.load(args.tokenizer)
    except UserError:  # a tokenizer that says nothing of thinking: for speed it is all the same how it is marked
        chat = Chat.load(args.tokenizer, "think-text")
    encoded = [
        chat.encode(example.prompt, example.trace, example.answer, shape.max_length)
        for example in random.Random(0).sample(list(examples.values()), number)
    ]
    return [([id_ % shape.vocabulary for id_ in one.ids], one.num_prompt) for one in encoded]


def made_rows(vocabulary: int, number: int, between: tuple[int, int] | None = None) -> list[tuple[list[int], int]]:
    """Returns examples as long as those of STAR-1, or evenly `between` two lengths.

    Their tokens follow Zipf's law, so that there is something to learn.
    """
    rng = random.Random(0)
    words = [int((vocabulary + 1) ** rng.random()) - 1 for _ in range(100_000)]
    if between is None:
        lengths = [min(1100, max(40, round(rng.lognormvariate(5.93, 0.4)))) for _ in range(number)]
    else:
        lengths = [rng.randint(*between) for _ in range(number)]
    return [(rng.choices(words, k=length), 27) for length in lengths]


# --- Processes ------------------------------------------------------------------------------------------------------------


def _run(job: Job) -> Run:
    """Runs a job in a worker process.

    Raises:
        RuntimeError: it failed; the message is its last line.
    """
    command = [sys.executable, "-m", "benchmarks.sft_throughput", "--worker"]
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}
    question = json.dumps({"parent": os.getpid(), "job": asdict(job)})
    done = subprocess.run(
        command, input=question, capture_output=True, text=True, cwd=ROOT, env=os.environ | quiet, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{job.side}: exit code {done.returncode}: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def _run_worker() -> None:
    """Runs a job in a worker process: JSON in and out, see `_run`."""
    import torch

    from dgr_lightning.training.flops import peak_flops, peak_memory_bytes

    question = json.loads(sys.stdin.readline())
    die_with_parent(question["parent"])
    job = Job(**question["job"])
    run = Run()
    with redirect_stdout(sys.stderr):
        (_train_ours if job.side in ("ours", "full logits") else _train_trl)(job, run)
        device = torch.device("cuda" if job.gpu else "cpu")
        run.peak, run.peak_flops = peak_memory_bytes(device), peak_flops(device, "bf16")
    print(json.dumps(asdict(run)))


def random_model(shape: Shape, device: str) -> Any:
    """Returns random weights in fp32, the same every time."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{shape.family}Config")(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.groups,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=shape.max_length,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    with torch.device(device):
        return getattr(transformers, f"{shape.family}ForCausalLM")(config)


def _model(job: Job) -> Any:
    """Returns the same weights for both sides."""
    return random_model(SHAPES[job.shape], "cuda" if job.gpu else "cpu")


def _train_ours(job: Job, run: Run) -> None:
    import torch
    from lightning.pytorch import Callback, Trainer

    from dgr_lightning.config import SftConfig
    from dgr_lightning.training import loss
    from dgr_lightning.training.sft import BARE_TRAINER, SafetySft

    def full_logits(head: Any, hidden: Any, labels: Any, *_: Any) -> Any:
        return torch.nn.functional.cross_entropy(head(hidden).float(), labels, reduction="sum")

    class Clock(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            run.ends.append(job.clock())
            run.losses.append(pl_module.last_step.loss)

    if job.side == "full logits":
        loss.summed_cross_entropy = full_logits
    shape = SHAPES[job.shape]
    sft = SftConfig(
        lr=LR,
        batch_size=shape.examples,
        max_length=shape.max_length,
        max_tokens=shape.max_tokens,
        weight_decay=0.0,
        warmup_ratio=0.0,
        optimizer=job.optimizer,
    )
    rows = job.read_rows()
    loader = _loader_in_order(rows, sft.batch_size, sft.max_tokens, run)
    if not job.gpu:
        keep_freed_memory()  # as in dgr_lightning.training.fit
    model = _model(job)
    run.flops_per_token = _flops_per_token(model, rows)
    if job.checkpointing:
        model.gradient_checkpointing_enable()
    module = SafetySft(model, sft, job.steps, "bf16")
    trainer = Trainer(
        accelerator="gpu" if job.gpu else "cpu",
        devices=1,
        max_steps=job.steps,
        callbacks=[Clock()],
        **BARE_TRAINER,
    )
    trainer.fit(module, loader)
    del run.tokens[job.steps :], run.targets[job.steps :]  # Lightning prefetches a step


def _loader_in_order(rows: Sequence[tuple[list[int], int]], batch_size: int, max_tokens: int, run: Run) -> Any:
    """Returns a loader of examples in the order of the file, which is the other side's; it counts their tokens."""
    from dgr_lightning.models.chat import Encoded
    from dgr_lightning.training.packing import StepLoader

    class InOrder(StepLoader):
        def __iter__(self) -> Any:
            for start in range(0, len(self.encoded), self.batch_size):
                encoded = self.encoded[start : start + self.batch_size]
                run.tokens.append(sum(len(document.ids) for document in encoded))
                run.targets.append(sum(len(document.ids) - document.num_prompt for document in encoded))
                loader = StepLoader(encoded, batch_size=len(encoded), max_tokens=self.max_tokens, seed=0, epochs=1)
                yield from loader

    encoded = [Encoded(ids, num_prompt) for ids, num_prompt in rows]
    return InOrder(encoded, batch_size=batch_size, max_tokens=max_tokens, seed=0, epochs=1)


def _train_trl(job: Job, run: Run) -> None:
    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if job.gpu:
                torch.cuda.synchronize()
            run.ends.append(job.clock())

    shape = SHAPES[job.shape]
    setting = {key: shape.examples if value == EXAMPLES else value for key, value in TRL_SETTINGS[job.side].items()}
    if job.gpu:  # long rows, and packed ones fill them
        setting = setting | {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 3 if "packing" in setting else 64}
    rows = job.read_rows()
    data = Dataset.from_list([{"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]} for ids, prompt in rows])
    # The rows are ids already; SFTTrainer uses nothing of its tokenizer but the padding token.
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0}, "a")), pad_token="a", eos_token="a")
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            learning_rate=LR,
            lr_scheduler_type="cosine",
            max_grad_norm=1.0,
            max_steps=job.steps,
            train_sampling_strategy="sequential",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=not job.gpu,
            **{"max_length": shape.max_length, **setting},
        )
        model = _model(job)
        run.flops_per_token = _flops_per_token(model, rows)
        trainer = SFTTrainer(model=model, args=config, train_dataset=data, processing_class=tokenizer, callbacks=[Clock()])
        collate = trainer.data_collator
        tokens, targets = [], []

        def count(examples: list[dict[str, Any]]) -> Any:
            batch = collate(examples)
            tokens.append(sum(len(example["input_ids"]) for example in examples))
            targets.append(int((batch["labels"][:, 1:] != -100).sum()))
            return batch

        trainer.data_collator = count
        trainer.train()
    rounds = config.gradient_accumulation_steps
    cuts = list(pairwise(range(0, rounds * len(run.ends) + 1, rounds)))
    run.tokens, run.targets = ([sum(some[start:stop]) for start, stop in cuts] for some in (tokens, targets))
    run.losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def _machine() -> str:
    names = ("torch", "lightning", "transformers", "trl", "accelerate", "bitsandbytes", "torchao")
    versions = []
    for name in names:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            versions.append(f"no {name}")
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    return f"{platform.processor() or platform.machine()}, {device}, Python {platform.python_version()}; {', '.join(versions)}"


if __name__ == "__main__":
    sys.exit(main())
