"""Where figures come from: commit, machine and date, without anything that identifies whose machine it was."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

from dgr_lightning import __version__
from dgr_lightning.installation import CHECKOUT
from dgr_lightning.threads import usable_cores

# What decides how fast, and with which rounding, a CPU multiplies.
_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")


@dataclass(frozen=True)
class Origin:
    """Where and when figures were made.

    Attributes:
        commit: of the project, with `+` if the working tree differed from it; None outside a checkout.
        machine: cores, kind of processor, version of torch; outside a checkout also the project's.
        date: ISO 8601.
    """

    commit: str | None
    machine: str
    date: str

    def sentence(self, command: str) -> str:
        """Returns the sentence that stands beside a figure."""
        commit = f", commit {self.commit}" if self.commit else ""
        return f"`{command}`, {self.machine}, {self.date}{commit}."

    def to_json(self) -> dict[str, str | None]:
        """Returns it as JSON."""
        return asdict(self)


def origin() -> Origin:
    """Returns the origin of figures that are made now and here."""
    commit = _commit()
    project = "" if commit else f", dgr_lightning {__version__}"
    machine = f"{usable_cores()} CPU cores ({_processor()}), torch {version('torch')}{project}"
    return Origin(commit, machine, date.today().isoformat())


def _commit() -> str | None:
    if CHECKOUT is None:
        return None

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != CHECKOUT:  # a copy inside another repository
            return None
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    """Returns the processor and its widest instructions, such as `AMD EPYC, avx2`."""
    facts = processor_facts()
    if not facts:
        return platform.machine()
    flags = facts.get("flags", "").split()
    widest = next((name for name in _INSTRUCTIONS if name in flags), "no avx2")
    return f"{facts.get('model name', 'unknown')}, {widest}"


def processor_facts() -> dict[str, str]:
    """Returns what /proc/cpuinfo says of a core, such as its `model name`; nothing where there is no such file."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
