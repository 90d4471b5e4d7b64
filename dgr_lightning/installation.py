"""Where the project lies, in a checkout or installed as a package, and how its commands are started there.

In a checkout, `conf/` lies at the top beside `train.py`; a wheel has it inside the package, and console commands such as
`dgr-train` in the place of the scripts (pyproject.toml).
"""

from __future__ import annotations

import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_SHIPPED = _PACKAGE / "conf"

CHECKOUT = None if _SHIPPED.is_dir() else _PACKAGE.parent
"""The top of the checkout; None in an installed package."""

CONF = _SHIPPED if CHECKOUT is None else CHECKOUT / "conf"
"""The config groups."""

_COMMANDS = ("train", "refine", "evaluate", "compare")


def script_name(command: str) -> str:
    """Returns the name of a command, as it is started here: `train.py`, or `dgr-train`.

    What the user has started decides; a process that was started as something else goes by where the project lies.

    Args:
        command: `train`, `refine`, `evaluate` or `compare`.
    """
    started = Path(sys.argv[0]).stem
    if started in _COMMANDS:
        return f"{command}.py"
    if started.removeprefix("dgr-") in _COMMANDS or CHECKOUT is None:
        return f"dgr-{command}"
    return f"{command}.py"


def command_line(command: str) -> str:
    """Returns how a user starts a command here: `python train.py`, or `dgr-train`; the arguments follow.

    Args:
        command: `train`, `refine`, `evaluate` or `compare`.
    """
    name = script_name(command)
    return f"python {name}" if name.endswith(".py") else name
