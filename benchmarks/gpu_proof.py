"""What a GPU says of this project: correctness of its kernels, speed, memory, and whole trainings, in at most nine minutes.

    python benchmarks/gpu_proof.py                            # one GPU, such as an H100 or H200
    python benchmarks/gpu_proof.py --out proof.jsonl          # the lines in a file as well
    python benchmarks/gpu_proof.py --parts fits,checkpoint    # these parts alone
    python benchmarks/gpu_proof.py --dry                      # on the CPU, tiny: that every part runs; about a minute

It prints a JSON line for everything that it measures. Every part is a process of its own with a time limit: one that fails,
hangs or runs out of memory ends in a line with its error, and the others go on. Weights and rows are random; nothing is read
from a hub. The parts drive the project's own modules (`SafetySft` under Lightning, `fit`, `Checkpoints`, the engine of the
probes), and need torch, lightning, transformers and no Hydra, omegaconf, datasets, vLLM, bitsandbytes or torchao.

| part | what it shows |
| --- | --- |
| attention | versions; torch's varlen attention equals SDPA, forward and backward, 20 documents in 8,192 tokens |
| cross_entropy | the fused loss at 152,064 words × 3,584: error, ms, memory on top |
| layer | a 7B layer, eager and compiled: ms, bytes kept for the backward pass |
| training | steps of 1.5B, eager and compiled, and of 7B widths × 10 layers with and without recomputing: tokens/s, MFU, peak |
| profile | the kernels that take the time, the idle share, synchronisations a step |
| fits | `fit` on one device, ddp, fsdp, offload, recompute, compile, killed and resumed: equal losses and exports |
| decoding | probes at 1.5B, 96 sequences: ms a step |
| checkpoint | 1.5B: seconds that it blocks, GB/s, what it costs the steps beside it |

Exit code 0 if every part came to its end without an error, 1 if not, 2 where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for `python benchmarks/gpu_proof.py`

TOTAL_SECONDS = 540
DRY_SECONDS = 900  # of all parts, and of any one: a dry run proves that they run, on whatever machine
_QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
}
_ERROR_CHARACTERS = 500


@dataclass(frozen=True)
class Part:
    """A part of the proof.

    Attributes:
        name: its name.
        function: `package.module:function`, a generator of lines; called with a `Setup` in a process of its own.
        seconds: its limit.
    """

    name: str
    function: str
    seconds: float


# Together more than TOTAL_SECONDS: a part that takes its limit has probably hung, and few do.
PARTS = [
    Part(name, f"benchmarks.gpu_parts.{name}:prove", seconds)
    for name, seconds in {
        "attention": 40,
        "cross_entropy": 40,
        "layer": 70,
        "training": 120,
        "profile": 60,
        "fits": 150,
        "decoding": 60,
        "checkpoint": 80,
    }.items()
]


def main() -> int:
    """Runs the parts and prints their lines; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--parts", help=f"comma-separated, of {', '.join(part.name for part in PARTS)}")
    parser.add_argument("--dry", action="store_true", help="every part on the CPU at tiny sizes")
    parser.add_argument("--seconds", type=float, help=f"limit of all parts together; default {TOTAL_SECONDS}")
    parser.add_argument("--out", type=Path, help="file that the lines are appended to")
    parser.add_argument("--folder", type=Path, help="where temporary files go, up to 45 GB of them: a local disk")
    args = parser.parse_args()
    names = [part.name for part in PARTS] if args.parts is None else args.parts.split(",")
    if unknown := set(names) - {part.name for part in PARTS}:
        parser.error(f"--parts has no {', '.join(sorted(unknown))}")
    if not args.dry and not _has_gpu():
        print("PyTorch finds no CUDA device here; --dry runs every part on the CPU.", file=sys.stderr)
        return 2
    failed = False
    with tempfile.TemporaryDirectory(prefix="dgr-proof-", dir=args.folder, ignore_cleanup_errors=True) as scratch:
        parts = [replace(part, seconds=DRY_SECONDS) if args.dry else part for part in PARTS if part.name in names]
        seconds = args.seconds or (DRY_SECONDS if args.dry else TOTAL_SECONDS)
        for line in prove(parts, Path(scratch), seconds, dry=args.dry):
            failed |= "error" in line
            print(text := json.dumps(line), flush=True)
            if args.out is not None:
                with args.out.open("a", encoding="utf-8") as file:
                    print(text, file=file)
    return 1 if failed else 0


def prove(parts: Sequence[Part], scratch: Path, seconds: float, *, dry: bool) -> Iterator[dict[str, Any]]:
    """Runs parts one after the other and yields their lines, each with the name of its part; the last of a part is its end.

    Args:
        parts: to run.
        scratch: folder for their files.
        seconds: limit of all together; parts for which no time is left yield an error.
        dry: whether on the CPU, at tiny sizes.
    """
    begun = monotonic()
    for part in parts:
        limit = min(part.seconds, seconds - (monotonic() - begun))
        if limit <= 0:
            yield {"part": part.name, "error": f"not begun: the {seconds:g} s of all parts are over"}
            continue
        folder = scratch / part.name
        folder.mkdir()
        start = monotonic()
        error = _run(part, folder, limit, dry=dry)
        for line in _lines(folder / "lines.jsonl"):
            yield {"part": part.name} | line
        yield {"part": part.name, "seconds": round(monotonic() - start, 1)} | ({"error": error} if error else {"done": True})


def _run(part: Part, folder: Path, limit: float, *, dry: bool) -> str | None:
    """Runs a part in a process and all that it starts, which end with it; returns why it failed, or None."""
    (folder / "files").mkdir()
    command = [sys.executable, "-m", "benchmarks.gpu_parts.worker", part.function, str(folder / "files")]
    command += [str(folder / "lines.jsonl"), "--parent", str(os.getpid()), *(["--dry"] if dry else [])]
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | _QUIET, stdout=output, stderr=output, start_new_session=True
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            return f"stopped at its limit of {limit:.0f} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its children have the same group
            process.wait()
    if code == 0:
        return None
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    said = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f"{how}: {(said or ['no message'])[-1][-_ERROR_CHARACTERS:]}"


def _lines(file: Path) -> list[dict[str, Any]]:
    """Returns the lines of a part, without one that was cut short."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return [json.loads(line) for line in text.rpartition("\n")[0].splitlines()]


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


if __name__ == "__main__":
    sys.exit(main())
