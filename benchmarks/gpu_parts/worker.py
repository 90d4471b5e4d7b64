"""The process of a part: it appends a JSON line to a file for every line of the part, as soon as it is known."""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import warnings
from functools import partialmethod
from pathlib import Path

from dgr_lightning.processes import die_with_parent


def main() -> None:
    """Runs the part that the arguments name."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", help="package.module:function")
    parser.add_argument("folder", type=Path, help="for its files")
    parser.add_argument("lines", type=Path, help="the file that its lines are appended to")
    parser.add_argument("--parent", type=int, help="process that it dies with")
    parser.add_argument("--dry", action="store_true")
    args = parser.parse_args()
    die_with_parent(args.parent)
    warnings.filterwarnings("ignore", module=r"lightning\.")
    logging.getLogger("lightning").setLevel(logging.ERROR)

    import torch

    from benchmarks.gpu_parts.part import Setup

    if args.dry:
        torch.set_num_threads(1)
        # The same tracing and the same graphs; of these no C++ is made, which would take a minute.
        torch.nn.Module.compile = partialmethod(torch.nn.Module.compile, backend="aot_eager")  # type: ignore[method-assign, assignment]
    else:
        torch.cuda.set_device(0)
    module, _, function = args.part.partition(":")
    with args.lines.open("a", encoding="utf-8") as file:
        for line in getattr(importlib.import_module(module), function)(Setup(args.dry, args.folder)):
            print(json.dumps(line), file=file, flush=True)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
