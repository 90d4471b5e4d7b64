"""All tasks of an evaluation in one stream, against one task after the other: decoding steps until the last output is there.

    python -m benchmarks.evaluation_stream

First with simulated engines under the project's own store, jobs and vLLM engine: each has a number of slots and needs a step
for a token of every sequence in it, whatever its length; all engines make a step at the same time. 4 tasks of 200 problems;
lengths are lognormal with a median of 1,000 tokens and a spread of 1, cut at 8,192. Then on the miniature with the transformers
engine: its five tasks, greedy, and the steps that it makes.
"""

from __future__ import annotations

import argparse
import heapq
import random
import sys
import tempfile
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from time import perf_counter
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for `python benchmarks/evaluation_stream.py`

from dgr_lightning.config import Config, EngineConfig
from dgr_lightning.console import console
from dgr_lightning.engines.engine import STOP, Request, Sampling
from dgr_lightning.engines.vllm.engine import VllmEngine
from dgr_lightning.engines.vllm.messages import Generate, Generated, Setup, VllmRequest, VllmResult
from dgr_lightning.generation.completions import CompletionStore
from dgr_lightning.generation.jobs import generate_stored

TASKS, PROBLEMS, CAP = 4, 200, 8192


class SimulatedPool:
    """Stands for the vLLM processes of a `VllmEngine`: continuous batching with a clock that counts steps.

    Attributes:
        max_length: tokens that prompt and output may have together.
        batch_size: slots of an engine.
        steps: made so far, by all engines together.
    """

    max_length = 2 * CAP

    def __init__(self, setup: Setup, environments: Sequence[dict[str, str]]) -> None:
        """Starts as many engines as there are environments; the first token of a prompt says how long its output is."""
        self.batch_size: int = setup.arguments["max_num_seqs"]
        self.steps = 0
        self._ids = count()
        # Of each engine: (step that finishes it, request) of those in a slot, and those that wait for one.
        self._running: list[list[tuple[int, int]]] = [[] for _ in environments]
        self._waiting: list[deque[Generate]] = [deque() for _ in environments]

    def __len__(self) -> int:
        """Returns the number of engines."""
        return len(self._running)

    def num_open(self) -> list[int]:
        """Returns for each engine the number of its unfinished requests."""
        return [len(running) + len(waiting) for running, waiting in zip(self._running, self._waiting, strict=True)]

    def next_id(self) -> int:
        """Returns an id that no request has had."""
        return next(self._ids)

    def submit(self, requests: Sequence[tuple[int, VllmRequest]]) -> None:
        """Gives requests to engines."""
        for index, request in requests:
            assert isinstance(request, Generate)
            self._waiting[index].append(request)
            self._admit(index)

    def collect(self, request_ids: Collection[int], *, wait_for_any: bool) -> list[VllmResult]:
        """Returns what the next steps finish; none are made where nothing is waited for."""
        if not wait_for_any:
            return []
        self.steps = min(running[0][0] for running in self._running if running)
        results: list[VllmResult] = []
        for index, running in enumerate(self._running):
            while running and running[0][0] == self.steps:
                results.append(Generated(heapq.heappop(running)[1], (0,), STOP))
            self._admit(index)
        return results

    def drop(self, request_ids: Collection[int]) -> None:
        """Forgets nothing: every request is finished."""

    def close(self) -> None:
        """Holds nothing."""

    def _admit(self, index: int) -> None:
        while self._waiting[index] and len(self._running[index]) < self.batch_size:
            request = self._waiting[index].popleft()
            heapq.heappush(self._running[index], (self.steps + request.prompt_ids[0], request.request_id))


class Nothing:
    """Decodes to no text."""

    pad_id = 0

    def decode(self, ids: Sequence[int]) -> str:
        """Returns an empty text."""
        return ""


def simulated_steps(num_engines: int, slots: int, seed: int = 0) -> tuple[int, int]:
    """Returns the steps for one task after the other, and for all tasks in one stream."""
    rng = random.Random(seed)
    tasks = [
        [
            Request(f"task{task}-{problem}/0", [min(CAP, max(1, round(rng.lognormvariate(6.9078, 1.0))))])
            for problem in range(PROBLEMS)
        ]
        for task in range(TASKS)
    ]
    return sum(_steps([task], num_engines, slots) for task in tasks), _steps(tasks, num_engines, slots)


def _steps(tasks: Sequence[Sequence[Request]], num_engines: int, slots: int) -> int:
    with patch("dgr_lightning.engines.vllm.engine.VllmPool", SimulatedPool), tempfile.TemporaryDirectory() as folder:
        config = EngineConfig(name="vllm", precision="bf16", replicas=num_engines, batch_size=slots)
        engine = VllmEngine(Path(folder), Nothing(), config, "cpu")
        stores = [CompletionStore(Path(folder) / str(index), {}) for index in range(len(tasks))]
        wanted = list(zip(stores, tasks, strict=True))
        generate_stored(lambda: engine, wanted, Sampling(0.6, 0.95, CAP, 0, ()), "simulated")
        for store in stores:
            store.close()
        pool = engine._pool
        assert isinstance(pool, SimulatedPool)
        return pool.steps


def miniature_steps(limit: int, batch_size: int) -> dict[str, tuple[int, float]]:
    """Returns decoding steps and seconds of the miniature's evaluation, `apart` and `together`; the outputs are the same."""
    from dgr_lightning.engines.model_handle import ModelHandle
    from dgr_lightning.evaluation.evaluate import evaluate_model
    from dgr_lightning.pipeline.locate_model import locate
    from dgr_lightning.scoring.judges.keywords import KeywordJudge
    from dgr_lightning.scoring.panel import Panel

    cfg = Config()
    cfg.model.recipe = "micro"
    cfg.engine = EngineConfig(name="transformers", precision="fp32", batch_size=batch_size)
    cfg.trainer.accelerator = "cpu"
    cfg.evaluation.limit, cfg.evaluation.temperature, cfg.evaluation.max_new_tokens = limit, 0.0, 160
    names = ["micro-short", "micro-medium", "micro-long", "micro-harmful", "micro-benign"]
    figures = {}
    with tempfile.TemporaryDirectory() as scratch, ModelHandle(locate(cfg.model), cfg) as model:
        model.engine()
        for how, streams in (("apart", [[name] for name in names]), ("together", [names])):
            place = Path(scratch) / how
            with _counted_steps() as steps:
                begin = perf_counter()
                for cfg.evaluation.tasks in streams:
                    evaluate_model(model, cfg, Panel(KeywordJudge()), place / "out", place / "stored")
                figures[how] = len(steps), perf_counter() - begin
        for name in names:
            files = [Path(scratch) / how / "out" / f"{name}.jsonl" for how in figures]
            assert files[0].read_bytes() == files[1].read_bytes(), name
    return figures


@contextmanager
def _counted_steps() -> Iterator[list[None]]:
    """Gives a list that grows by one with every decoding step of the transformers engine."""
    from dgr_lightning.engines.transformers.decoding import ContinuousBatch

    steps: list[None] = []
    step = ContinuousBatch._step

    def counted(batch: ContinuousBatch) -> list[int]:
        steps.append(None)
        return step(batch)

    with patch.object(ContinuousBatch, "_step", counted):
        yield steps


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=200, help="problems a task of the miniature")
    args = parser.parse_args()
    lines = []
    console.quiet = True
    for num_engines, slots in ((1, 128), (8, 128), (1, 1024), (8, 1024)):
        apart, together = simulated_steps(num_engines, slots)
        lines.append(
            f"simulated, {num_engines} engine(s) of {slots:,} slots: {apart:,} steps one task after the other, {together:,} in "
            f"one stream, {apart / together:.2f} times fewer"
        )
    for batch_size in (128, 32):
        figures = miniature_steps(args.limit, batch_size)
        (apart, before), (together, after) = figures["apart"], figures["together"]
        lines.append(
            f"miniature, 5 tasks of {args.limit} problems, {batch_size} at once: {apart:,} steps one task after the other, "
            f"{together:,} in one stream, {apart / together:.2f} times fewer; {before:.1f} s and {after:.1f} s with scoring"
        )
    console.quiet = False
    for line in lines:
        console.print(line, soft_wrap=True)


if __name__ == "__main__":
    main()
