"""The cost of a large set in the refine stage besides generation: memory while it runs, and the start on a complete store.

    python -m benchmarks.large_set --tokenizer <folder of a reasoning model's tokenizer>

Rows like SafeChain's (a prompt, a long trace, an answer; 5 kB each) go through sources, DGR with the tokenizer's chat template,
quality control and the store. A stand-in for the engine answers at once with the text to rewrite, so that only the project's
own code is measured. Two processes run one after the other: the first refines everything, the second finds everything done.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for `python benchmarks/large_set.py`

if TYPE_CHECKING:
    from dgr_lightning.engines.engine import Completion, Request, Sampling
    from dgr_lightning.models.chat import Chat

STARTED = time.monotonic()
TEXT = "the user asks how to do this and it would cause harm so a careful answer weighs what is safe before it says no"


def main() -> None:
    """Runs both processes, which print what they measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with tokenizer and chat template")
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--phase", choices=("fill", "again"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.phase:
        refine(options.folder, options.tokenizer, options.phase)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder) / "rows.jsonl", options.rows)
        for phase in ("fill", "again"):
            command = [sys.executable, __file__, "--tokenizer", str(options.tokenizer)]
            subprocess.run([*command, "--phase", phase, "--folder", folder], check=True)
        size = sum(file.stat().st_size for file in (Path(folder) / "cache").rglob("*.jsonl"))
        print(f"store: {size / 2**20:,.0f} MiB")


def write_rows(path: Path, num_rows: int) -> None:
    """Writes rows with SafeChain's columns."""
    rng, words = random.Random(0), TEXT.split()
    with open(path, "w", encoding="utf-8") as file:
        for number in range(num_rows):
            trace = " ".join(rng.choices(words, k=rng.randint(300, 1200)))
            answer = "I cannot help with that. " + " ".join(rng.choices(words, k=rng.randint(20, 120)))
            row = {"instruction": f"Question {number}: how would one do thing {number}?", "label": "harmful"}
            file.write(json.dumps(row | {"response": f"{trace}\n</think>\n\n{answer}"}) + "\n")


def refine(folder: Path, tokenizer: Path, phase: str) -> None:
    """Refines the rows and prints memory and times."""
    from dgr_lightning.config import Config, DataConfig, EngineConfig, FieldsConfig, RefineConfig
    from dgr_lightning.data import sources
    from dgr_lightning.example import ExampleFile
    from dgr_lightning.files import write_jsonl
    from dgr_lightning.models.chat import Chat
    from dgr_lightning.refinement import refine
    from dgr_lightning.scoring.judges.keywords import KeywordJudge

    chat = Chat.load(tokenizer)
    engine, memory = Echo(chat), []

    def watch() -> None:
        while True:
            memory.append((engine.num_done, resident()))
            time.sleep(0.5)

    refine.run_jobs = timed(refine.run_jobs, phase)
    threading.Thread(target=watch, daemon=True).start()
    fields = FieldsConfig(prompt="instruction", response="response")
    data = DataConfig(name="large", path=str(folder / "rows.jsonl"), fields=fields)
    source = sources.load_examples(data, seed=1)
    write_jsonl(folder / "sources.jsonl", source.examples)
    del source
    cfg = Config(data=data, refine=RefineConfig(), engine=EngineConfig(name="transformers", precision="fp32"))
    target: Any = SimpleNamespace(chat=chat, engine=lambda: engine, model_hash="model")
    refinement = refine.refine_set(ExampleFile(folder / "sources.jsonl"), cfg, target, KeywordJudge(), folder / "cache")
    write_jsonl(folder / "refined.jsonl", refinement.examples)
    if phase == "fill":
        print_quarters(memory, max(1, engine.num_done // 4))
    print(f"{phase}: peak {max(size for _, size in memory) / 2**20:,.0f} MiB, whole stage {time.monotonic() - STARTED:.0f} s")
    print(f"{phase}: {refinement.stats.refined:,} of {refinement.stats.examples:,} refined, {refinement.stats.fallback}")


class Echo:
    """An engine that answers every prompt at once, with the text that it asks to rewrite, after a thought.

    Attributes:
        num_done: completions so far.
    """

    def __init__(self, chat: Chat) -> None:
        """Takes what makes text of prompts."""
        self._chat, self.num_done = chat, 0

    def generate(self, requests: Iterable[Request | None], sampling: Sampling) -> Iterator[Completion]:
        """Yields the completions in the order of the requests."""
        from dgr_lightning.engines.engine import STOP, Completion
        from dgr_lightning.engines.request_queue import RequestQueue

        queue = RequestQueue(requests)
        while not queue.exhausted:
            for request in queue.take(512):
                self.num_done += 1
                asked = self._chat.decode(request.prompt_ids).rpartition("own words: ")[2].partition("\n\nReply with")[0]
                text = f"Say it my way.\n</think>\n\n{asked}"
                yield Completion(request.key, tuple(request.prompt_ids), text, STOP)

    def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """Is never called by the refine stage."""
        raise NotImplementedError

    def close(self) -> None:
        """Holds nothing."""


def timed(run_jobs: Callable[..., int], phase: str) -> Callable[..., int]:
    """Returns `run_jobs` with its times, and the memory before and after it, printed."""

    def run(*arguments: Any, **options: Any) -> int:
        ready, before = time.monotonic(), resident()
        num_generated = run_jobs(*arguments, **options)
        print(
            f"{phase}: {num_generated:,} completions; jobs ran from {ready - STARTED:.1f} s after the start to "
            f"{time.monotonic() - STARTED:.1f} s; resident {before / 2**20:,.0f} MiB before, {resident() / 2**20:,.0f} after",
            flush=True,
        )
        return num_generated

    return run


def print_quarters(memory: list[tuple[int, int]], quarter: int) -> None:
    """Prints the range of resident memory over each quarter of the completions."""
    for number in range(4):
        part = [size for done, size in memory if number * quarter < done <= (number + 1) * quarter]
        print(f"  quarter {number + 1} of the completions: resident {min(part) / 2**20:,.0f} … {max(part) / 2**20:,.0f} MiB")


def resident() -> int:
    """Returns the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
