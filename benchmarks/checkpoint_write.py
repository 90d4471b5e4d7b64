"""What a checkpoint costs the training that goes on beside it, against torch's own asynchronous writer of the same format.

    python -m benchmarks.checkpoint_write [--megabytes 543] [--repeats 5] [--folder DIR]

For each writer, the median over the repeats: the seconds for which `save` blocks; GB/s from its beginning until the checkpoint
is on the disk; and the longest time for which another Python thread, which does nothing but look at the clock, was kept waiting
meanwhile. The writers take turns, so that a busy machine is busy for both.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint import HuggingFaceStorageWriter

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for `python benchmarks/checkpoint_write.py`

from dgr_lightning.distributed.ranks import Ranks
from dgr_lightning.training.checkpoints import Checkpoints

WIDTH = 1024  # of the layers: 4 MiB of weights each, and twice that of AdamW's states


def trained(megabytes: int, device: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Returns a model and its optimizer after a step, whose checkpoint has about so many MB."""
    count = max(1, round(megabytes * 1e6 / (12 * WIDTH**2)))
    model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False, device=device) for _ in range(count)))
    optimizer = torch.optim.AdamW(model.parameters())
    for weight in model.parameters():
        weight.grad = torch.full_like(weight, 0.1)
    optimizer.step()
    return model, optimizer


def measure(begin: Callable[[], Callable[[], bool]]) -> tuple[float, float, float]:
    """Returns seconds that beginning a checkpoint takes, seconds until it is done, and the longest wait of this thread then.

    Args:
        begin: begins a checkpoint, and returns a function that says whether it is done.
    """
    start = perf_counter()
    is_done = begin()
    blocked = last = perf_counter()
    longest = 0.0
    while not is_done():
        for _ in range(1000):
            now = perf_counter()
            longest, last = max(longest, now - last), now
    return blocked - start, perf_counter() - start, longest


def main() -> None:
    """Prints a line for each writer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=543, help="size of a checkpoint")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; default: that of temporary files")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", "torch.distributed is disabled")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, optimizer = trained(args.megabytes, device)
    tensors = {f"model.{name}": weight.detach() for name, weight in model.named_parameters()}
    for name, weight in model.named_parameters():
        tensors |= {f"optimizer.{name}.{key}": value for key, value in optimizer.state[weight].items()}
    size = sum(tensor.nbytes for tensor in tensors.values())
    with TemporaryDirectory(dir=args.folder) as folder:
        checkpoints = Checkpoints(Path(folder) / "ours", Ranks())

        def ours() -> Callable[[], bool]:
            checkpoints.save(1, model, optimizer, {})
            return lambda: not checkpoints.is_pending

        def torchs() -> Callable[[], bool]:
            shutil.rmtree(Path(folder) / "torchs", ignore_errors=True)
            writer = HuggingFaceStorageWriter(str(Path(folder) / "torchs"), save_distributed=True)
            written = dcp.async_save(tensors, storage_writer=writer, no_dist=True)
            assert not isinstance(written, dcp.state_dict_saver.AsyncSaveResponse)
            return written.done

        writers = {"torch's writer": torchs, "this project's, first": ours, "this project's": ours}
        found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in writers}
        for repeat in range(args.repeats):
            for name, begin in writers.items():
                if name != "this project's, first" or repeat == 0:  # which allocates the host memory
                    found[name].append(measure(begin))
        checkpoints.wait()
    print(f"{size / 1e6:,.0f} MB on {device}, {args.repeats} repeats, {process_time():.0f} s of processor time")
    for name, times in found.items():
        blocked, seconds, longest = (median(values) for values in zip(*times, strict=True))
        print(f"{name}: blocks {blocked:.3f} s, {size / 1e9 / seconds:.2f} GB/s, longest wait of a thread {longest:.3f} s")


if __name__ == "__main__":
    main()
