"""A sweep in a process of its own that ends with the study that started it.

`experiments/grid.py` starts it as `python -m … <process id of the study> <name of its command> <arguments>`.
"""

from __future__ import annotations

import sys

from dgr_lightning.cli.scripts import train
from dgr_lightning.processes import die_with_parent


def main() -> None:
    """Trains with the arguments that follow, in the name of the command that the user has started."""
    die_with_parent(int(sys.argv.pop(1)))
    sys.argv[0] = sys.argv.pop(1)
    train()


if __name__ == "__main__":
    main()
