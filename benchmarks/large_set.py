"""What a large set costs the refine stage besides generation: memory while it runs, and the start on a complete store.

    python -m benchmarks.large_set --tokenizer <folder of a reasoning model's tokenizer>

Rows like SafeChain's (a prompt, a long trace, an answer; 5 kB each) go through sources, DGR with the tokenizer's chat
template, quality control and the store. The engine is a stand-in that answers at once, with what it was asked to rewrite: what
is measured is ours. Two processes, one after the other: the first refines everything, the second finds everything done.
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
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

STARTED = time.monotonic()
TEXT = "the user asks how to do this and it would cause harm so a careful answer weighs what is safe before it says no"


def main() -> None:
    """Runs both processes and prints what they measured."""
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
            command = [sys.executable, "-m", "benchmarks.large_set", "--tokenizer", str(options.tokenizer)]
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
    from dgr_lightning.engines.engine import STOP, Completion, Request, Sampling
    from dgr_lightning.engines.request_queue import Feed
    from dgr_lightning.example import ExampleFile
    from dgr_lightning.files import write_jsonl
    from dgr_lightning.models.chat import Chat
    from dgr_lightning.refinement import refine
    from dgr_lightning.scoring.judges.keywords import KeywordJudge

    chat = Chat.load(tokenizer)
    memory: list[tuple[int, int]] = []

    class Echo:
        """Answers every prompt with the text that it asks to rewrite, behind a thought."""

        num_done = 0

        def generate(self, requests: Iterable[Request | None], sampling: Sampling) -> Iterator[Completion]:
            feed = Feed(requests)
            while not feed.ended:
                for request in feed.take(512):
                    self.num_done += 1
                    asked = chat.decode(request.prompt_ids).rpartition("own words: ")[2].partition("\n\nReply with")[0]
                    text = f"Say it my way.\n</think>\n\n{asked}"
                    yield Completion(request.key, tuple(request.prompt_ids), text, STOP)

        def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
            raise NotImplementedError

        def close(self) -> None:
            """Holds nothing."""

    engine = Echo()

    def watch() -> None:
        while True:
            memory.append((engine.num_done, resident()))
            time.sleep(0.5)

    generate = refine.run_jobs

    def timed(*arguments, **options) -> int:  # type: ignore[no-untyped-def]
        ready = time.monotonic()
        before = resident()
        num_generated = generate(*arguments, **options)
        print(
            f"{phase}: {num_generated:,} completions; jobs ran from {ready - STARTED:.1f} s after the start to "
            f"{time.monotonic() - STARTED:.1f} s; resident {before / 2**20:,.0f} MiB before, {resident() / 2**20:,.0f} after",
            flush=True,
        )
        return num_generated

    refine.run_jobs = timed
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
    quarter = max(1, engine.num_done // 4)
    if phase == "fill":
        for number in range(4):
            part = [size for done, size in memory if number * quarter < done <= (number + 1) * quarter]
            print(
                f"  quarter {number + 1} of the completions: resident {min(part) / 2**20:,.0f} … {max(part) / 2**20:,.0f} MiB"
            )
    print(f"{phase}: peak {max(size for _, size in memory) / 2**20:,.0f} MiB, whole stage {time.monotonic() - STARTED:.0f} s")
    print(f"{phase}: {refinement.stats.refined:,} of {refinement.stats.examples:,} refined, {refinement.stats.fallback}")


def resident() -> int:
    """Returns the bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
