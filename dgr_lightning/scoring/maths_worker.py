"""The process in which math-verify runs: reads pairs of LaTeX on standard input, writes whether they are equal.

`graders/maths` starts it as `python -m dgr_lightning.scoring.maths_worker` and kills it when a comparison takes too long. It is
a separate process because nothing inside a process can stop a computation on huge numbers, and so that harmful model text runs
into a limit on memory. It imports nothing heavy besides math-verify.
"""

from __future__ import annotations

import json
import logging
import os
import sys

from dgr_lightning.distributed.processes import die_with_parent

MEMORY_BYTES = 4 * 2**30


def main() -> None:
    """Answers `{"answer", "gold"}` with `{"equal"}`, a line each, until its input ends."""
    die_with_parent(int(sys.argv[1]))
    if sys.platform.startswith("linux"):
        import resource  # Windows has no such module

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    # Replies have a separate stream: whatever a library prints to standard output goes nowhere.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    logging.disable(logging.CRITICAL)

    from math_verify import LatexExtractionConfig, parse, verify

    def equal(answer: str, gold: str) -> bool:
        # LaTeX alone: math-verify's other reader passes text to Python's eval. Its time limits are alarm signals, which a long
        # computation in C never sees, so they are off: the parent has one.
        latex = (LatexExtractionConfig(boxed_match_priority=0),)
        parsed = [
            parse(f"\\boxed{{{text}}}", latex, parsing_timeout=None, fallback_mode="no_fallback") for text in (gold, answer)
        ]
        return all(parsed) and verify(*parsed, timeout_seconds=None)

    equal("\\frac{1}{2}", "0.5")  # builds the parser's tables, which takes longer than a grading may
    replies.write("{}\n")
    for line in sys.stdin:
        try:
            result = bool(equal(**json.loads(line)))
        except Exception:  # LaTeX that breaks the parser is not the gold answer
            result = False
        replies.write(json.dumps({"equal": result}) + "\n")


if __name__ == "__main__":
    main()
