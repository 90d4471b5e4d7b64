"""The process in which math-verify runs: is asked about pairs of LaTeX, and answers whether they are equal.

`graders/maths` starts it (`limited_process`), because nothing inside a process can stop a computation on huge numbers, and so
that harmful model text runs into a limit on memory. It imports nothing heavy besides math-verify.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dgr_lightning.limited_process import serve

MEMORY_BYTES = 4 * 2**30


def main() -> None:
    """Answers `{"answer", "gold"}` with `{"equal"}`."""
    serve(_prepare, MEMORY_BYTES)


def _prepare() -> Callable[[dict[str, Any]], dict[str, bool]]:
    from math_verify import LatexExtractionConfig, parse, verify

    def equal(answer: str, gold: str) -> bool:
        # LaTeX alone: math-verify's other reader passes text to Python's eval. Its time limits are alarm signals, which a long
        # computation in C never sees, so they are off: the parent has one.
        latex = (LatexExtractionConfig(boxed_match_priority=0),)
        parsed = [
            parse(f"\\boxed{{{text}}}", latex, parsing_timeout=None, fallback_mode="no_fallback") for text in (gold, answer)
        ]
        return all(parsed) and verify(*parsed, timeout_seconds=None)

    def reply(pair: dict[str, Any]) -> dict[str, bool]:
        try:
            return {"equal": bool(equal(**pair))}
        except Exception:  # LaTeX that breaks the parser is not the gold answer
            return {"equal": False}

    equal("\\frac{1}{2}", "0.5")  # builds the parser's tables, which takes longer than a grading may
    return reply


if __name__ == "__main__":
    main()
