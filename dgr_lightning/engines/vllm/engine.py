"""Generation and scoring with vLLM, offline: one engine per GPU or tensor-parallel group, or one on the CPU.

Requests are fed so that each engine has more than it can decode at once, and never much more: a place in a batch is filled as
soon as it comes free, and what is finished is yielded at once. All requests of an example go to the same engine, by a hash of
its id, where what their prompts have in common is in the prefix cache.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

from dgr_lightning.config import EngineConfig
from dgr_lightning.console import say
from dgr_lightning.engines.engine import LENGTH, Completion, Decoder, Request, Sampling
from dgr_lightning.engines.request_queue import Feed
from dgr_lightning.engines.sampling import noise_stream
from dgr_lightning.engines.vllm.messages import Generate, Generated, Score, Scored, Setup, Work
from dgr_lightning.engines.vllm.pool import VllmPool
from dgr_lightning.errors import UserError

# Batches that an engine has: one that is decoded, and one that waits.
_BATCHES_OPEN = 2
# Examples do not come evenly to all engines: so many times as much may be under way, so that none stands still.
_SPREAD = 4
# Requests that are taken in one go: the first are generated while the next prompts are made.
_SENT_AT_ONCE = 32

_DTYPES = {"bf16": "bfloat16", "fp32": "float32"}


class VllmEngine:
    """An `Engine` over vLLM processes.

    Attributes:
        max_length: tokens that prompt and output may have together.
    """

    def __init__(
        self, folder: Path, decoder: Decoder, engine: EngineConfig, precision: str, device: str, trust_remote_code: bool = False
    ) -> None:
        """Starts the engines and waits until they have loaded the model.

        Args:
            folder: local Hugging Face folder.
            decoder: makes text of tokens.
            engine: batch size, memory, number of engines and so on.
            precision: `bf16` or `fp32`, the type of weights and computation.
            device: `cpu` or `cuda`.
            trust_remote_code: run code that lies in the folder.

        Raises:
            UserError: more devices are asked for than there are, or vLLM cannot serve the model; it says what to write.
            RuntimeError: an engine has died.
        """
        environments = cpu_environments(engine) if device == "cpu" else _cuda_environments(engine)
        say(f"vLLM starts: {len(environments)} engine(s) on {_place(engine, device, len(environments))}")
        self._decoder, self._batch_size = decoder, engine.batch_size
        try:
            self._pool = VllmPool(Setup(engine_arguments(folder, engine, precision, trust_remote_code), device), environments)
        except UserError as error:
            raise UserError(f"vLLM does not start with {folder}: {error}\n{_advice(str(error), device, engine)}") from None
        self.max_length = self._pool.max_length

    def generate(self, requests: Iterable[Request | None], sampling: Sampling) -> Iterator[Completion]:
        """Yields one completion a request, in the order in which they finish.

        A request gets at most the tokens that `max_length` leaves it behind its prompt, possibly none; running into that end is
        `length`, as is running into `sampling.max_new_tokens`.

        Raises:
            RuntimeError: an engine has died.
        """
        feed = Feed(requests)
        keys: dict[int, str] = {}
        try:
            while keys or not feed.ended:
                room = self._room()
                taken = feed.take(room)
                work: list[tuple[int, Work]] = []
                unanswered: list[Completion] = []
                for request in taken:
                    budget = min(sampling.max_new_tokens, self.max_length - len(request.prompt_ids))
                    if budget > 0:
                        piece = _generation(self._pool.number(), request, sampling, budget)
                        keys[piece.number] = request.key
                        work.append((_engine_of(request.key, len(self._pool)), piece))
                    else:
                        unanswered.append(Completion(request.key, (), "", LENGTH))
                self._pool.submit(work)
                yield from unanswered
                # Where as much as asked for came, there may be more to send before anything is waited for.
                more = bool(unanswered) or 0 < len(taken) == room
                unfinished = bool(keys) or not feed.ended
                for done in self._pool.collect(keys, wait_for_any=unfinished and not more):
                    assert isinstance(done, Generated)
                    text = self._decoder.decode(done.token_ids)
                    yield Completion(keys.pop(done.number), done.token_ids, text, done.finish_reason)
        finally:
            self._pool.drop(keys)

    def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """Returns for each (prompt ids, target ids) the natural-log probability of every target token, in order.

        The prompt is at least one token; an empty target has an empty score.

        Raises:
            UserError: a pair is longer than `max_length`.
            RuntimeError: an engine has died.
        """
        waiting = deque(i for i, (_, target) in enumerate(pairs) if target)
        longest = max((sum(map(len, pairs[i])) for i in waiting), default=0)
        if longest > self.max_length:
            raise UserError(
                f"engine=vllm: a text of {longest} tokens is to be scored, and the engine runs with {self.max_length} (what "
                f"engine.max_length, the model and its memory allow). Write engine.max_length={longest}, or shorten the text."
            )
        scores: list[list[float]] = [[] for _ in pairs]
        indices: dict[int, int] = {}
        try:
            while waiting or indices:
                room = _BATCHES_OPEN * self._batch_size * len(self._pool) - len(indices)
                load = self._pool.num_open()
                work: list[tuple[int, Work]] = []
                for _ in range(min(room, len(waiting), _SENT_AT_ONCE)):
                    i = waiting.popleft()
                    prompt, target = pairs[i]
                    piece = Score(self._pool.number(), [*prompt, *target], len(prompt))
                    indices[piece.number] = i
                    # The prefix cache does not serve scores, so they go where there is least to do.
                    place = load.index(min(load))
                    load[place] += 1
                    work.append((place, piece))
                self._pool.submit(work)
                for done in self._pool.collect(indices, wait_for_any=not waiting or room <= len(work)):
                    assert isinstance(done, Scored)
                    scores[indices.pop(done.number)] = done.log_probabilities
        finally:
            self._pool.drop(indices)
        return scores

    def close(self) -> None:
        """Ends the engines and waits for that; their devices' memory is then free."""
        self._pool.close()

    def _room(self) -> int:
        """Returns how many requests to take now: none where every engine has enough."""
        load, enough = self._pool.num_open(), _BATCHES_OPEN * self._batch_size
        missing = (enough - min(load)) * len(load)
        return max(0, min(_SENT_AT_ONCE, missing, _SPREAD * enough * len(load) - sum(load)))


def _generation(number: int, request: Request, sampling: Sampling, budget: int) -> Generate:
    stream = noise_stream(sampling.seed, request.key)
    return Generate(number, request.prompt_ids, budget, sampling.temperature, sampling.top_p, sampling.stop_ids, stream)


def _engine_of(key: str, num_engines: int) -> int:
    """Returns the engine of a request: the same for all whose keys have the same text before the first slash."""
    name = key.partition("/")[0]
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8, person=b"engine").digest(), "little") % num_engines


def engine_arguments(folder: Path, engine: EngineConfig, precision: str, trust_remote_code: bool) -> dict[str, object]:
    """Returns the arguments of vLLM's `EngineArgs`."""
    return {
        "model": str(folder),
        "trust_remote_code": trust_remote_code,
        "load_format": "safetensors",
        "dtype": _DTYPES[precision],
        # Tokens go in and come out. transformers' AutoTokenizer, which vLLM would load, breaks some of them.
        "skip_tokenizer_init": True,
        # What ends a generation is said with each request.
        "generation_config": "vllm",
        # -1: as long as the model's positions and the memory allow.
        "max_model_len": engine.max_length or -1,
        "max_num_seqs": engine.batch_size,
        "gpu_memory_utilization": engine.memory,
        "tensor_parallel_size": engine.tensor_parallel,
        "enforce_eager": not engine.compile,
        "enable_prefix_caching": True,
        # Scores go before generations, see `engines.vllm_worker`.
        "scheduling_policy": "priority",
        "disable_log_stats": True,
        "seed": 0,
    }


def _cuda_environments(engine: EngineConfig) -> list[dict[str, str]]:
    """Returns for each engine the variables that give it its GPUs."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = [str(i) for i in range(torch.cuda.device_count())] if visible is None else [*filter(None, visible.split(","))]
    size = engine.tensor_parallel
    num_engines = engine.replicas or len(devices) // size
    if not num_engines or num_engines * size > len(devices):
        raise UserError(
            f"engine.replicas={engine.replicas or 1} engine.tensor_parallel={size}: that takes {(engine.replicas or 1) * size} "
            f"GPU(s), and vLLM would find {len(devices)} here. Write smaller numbers."
        )
    return [{"CUDA_VISIBLE_DEVICES": ",".join(devices[i * size : (i + 1) * size])} for i in range(num_engines)]


def cpu_environments(engine: EngineConfig) -> list[dict[str, str]]:
    """Returns for each engine the variables that give it its memory and, if there are several, its share of the cores."""
    if engine.tensor_parallel > 1:
        raise UserError("engine.tensor_parallel: on a CPU there is one device; write engine.tensor_parallel=1.")
    num_engines = engine.replicas or 1
    environment = {"VLLM_CPU_KVCACHE_SPACE": str(engine.cpu_cache_gib), **_intel_openmp()}
    if num_engines > 1 and "OMP_NUM_THREADS" not in os.environ:
        environment["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // num_engines))
    return [environment] * num_engines


def _intel_openmp() -> dict[str, str]:
    """Returns the variables that put Intel's OpenMP, which vLLM's CPU build requires on x86, in the place of PyTorch's.

    On two cores that other work shared, vLLM made five times as many tokens with it: PyTorch's keeps threads spinning that have
    nothing to do. The time after which they rest here is vLLM's own choice.
    """
    if "LD_PRELOAD" in os.environ:
        return {}
    try:
        files = metadata.files("intel-openmp") or []
    except metadata.PackageNotFoundError:
        return {}
    libraries = [str(file.locate()) for file in files if file.name == "libiomp5.so"]
    return {"LD_PRELOAD": libraries[0], "KMP_BLOCKTIME": "5"} if libraries else {}


def _place(engine: EngineConfig, device: str, num_engines: int) -> str:
    return "the CPU" if device == "cpu" else f"{num_engines * engine.tensor_parallel} GPU(s)"


def _advice(reason: str, device: str, engine: EngineConfig) -> str:
    """Returns which override may help, after what vLLM says."""
    reason = reason.casefold()
    if "attention heads" in reason or "tensor parallel" in reason:
        return f"Write another engine.tensor_parallel than {engine.tensor_parallel}."
    if "memory" in reason or "kv cache" in reason:
        if device == "cpu":
            return f"Write another engine.cpu_cache_gib than {engine.cpu_cache_gib}, or a smaller engine.max_length."
        return f"Write another engine.memory than {engine.memory}, a smaller engine.max_length, or engine.tensor_parallel=2."
    if "max_model_len" in reason:
        return f"Write a smaller engine.max_length than {engine.max_length}."
    return "engine=transformers takes most models that vLLM does not."
