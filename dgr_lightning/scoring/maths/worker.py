"""The process in which answers are computed: is asked about pairs of LaTeX, and answers whether they are equal.

`graders/maths` starts it (`limited_process`), so that model text runs into limits on time and memory, and so that a
computation in C that never ends can be ended at all. The clock runs here and counts the time of this process alone, not
that of others on a busy machine. math-verify is imported when a first pair needs it.
"""

from __future__ import annotations

import importlib.util
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from dgr_lightning.limited_process import serve
from dgr_lightning.scoring.maths.equivalence import Symbolic, equivalent

MEMORY_BYTES = 2 * 2**30
"""Of one worker: math-verify takes a tenth of it."""

HAS_CLOCK = hasattr(signal, "setitimer")
"""Whether a process can be told when it has computed for so long (not on Windows, where the parent's limit is the only one)."""

GRACE_SECONDS = 1.0
"""What a computation that cannot be interrupted, in C, gets beyond its limit before the system ends the process."""


class _TimeIsUp(BaseException):
    """Not an Exception: the libraries catch those."""


class _NotLoaded(BaseException):
    """A pair needs math-verify."""


def main() -> None:
    """Answers `{"answer", "gold", "seconds"}` with `{"equal"}`: true, false, null for unreadable, or "timeout"."""
    serve(_prepare, MEMORY_BYTES)


def _prepare() -> Callable[[dict[str, Any]], dict[str, Any]]:
    if importlib.util.find_spec("math_verify") is None:
        raise ImportError("math_verify")  # at the start, where the parent hears of it
    symbolic: Symbolic = _not_loaded

    def reply(pair: dict[str, Any]) -> dict[str, Any]:
        nonlocal symbolic
        for _ in range(2):
            try:
                with _clock(pair["seconds"]):
                    return {"equal": equivalent(pair["answer"], pair["gold"], symbolic)}
            except _NotLoaded:
                symbolic = _load()  # takes longer than a grading may
            except (_TimeIsUp, MemoryError):
                return {"equal": "timeout"}
            except Exception:  # text that breaks a parser is not the gold answer
                return {"equal": None}
        return {"equal": None}

    return reply


def _not_loaded(answer: str, gold: str) -> bool | None:
    raise _NotLoaded


def _load() -> Symbolic:
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse, verify

    # LaTeX alone: math-verify's other reader passes text to Python's eval. It takes no letters for units, that is done before.
    # Its time limits are alarm signals, which a long computation in C never sees, so they are off.
    form = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all", equations=False)
    latex = (LatexExtractionConfig(boxed_match_priority=0, normalization_config=form),)

    def symbolic(answer: str, gold: str) -> bool | None:
        parsed = [
            parse(f"\\boxed{{{text}}}", latex, parsing_timeout=None, fallback_mode="no_fallback") for text in (gold, answer)
        ]
        if not all(parsed):
            return None
        return bool(verify(*parsed, timeout_seconds=None))

    symbolic("\\frac{1}{2}", "0.5")  # builds the parser's tables
    return symbolic


@contextmanager
def _clock(seconds: float) -> Iterator[None]:
    """Limits the time that this process computes within: first by an exception, then, where that is not heard, by its end."""
    if not HAS_CLOCK:
        yield
        return
    import resource

    def ring(_: int, __: FrameType | None) -> None:
        raise _TimeIsUp

    unlimited = resource.RLIM_INFINITY
    signal.signal(signal.SIGPROF, ring)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + seconds + GRACE_SECONDS), unlimited))
    try:
        # Again and again: the first one may be raised where nothing can pass it on, for example while an object is deleted.
        signal.setitimer(signal.ITIMER_PROF, seconds, 0.2)
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (unlimited, unlimited))


if __name__ == "__main__":
    main()
