"""A sweep in a process of its own that ends with the study that started it: `python -m … <parent> <arguments of train.py>`."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from dgr_lightning.processes import die_with_parent

TRAIN = Path(__file__).resolve().parents[2] / "train.py"


def main() -> None:
    """Runs train.py with the arguments that follow the parent's process id."""
    die_with_parent(int(sys.argv.pop(1)))
    sys.argv[0] = str(TRAIN)
    runpy.run_path(str(TRAIN), run_name="__main__")


if __name__ == "__main__":
    main()
