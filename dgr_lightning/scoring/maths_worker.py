"""The process in which math-verify runs: reads pairs of LaTeX on standard input, writes whether they are equal.

`maths` starts it as `python -m dgr_lightning.scoring.maths_worker` and kills it when a comparison takes too long. It is a
process of its own because nothing inside a process can stop a computation on huge numbers, and because model text should do its
harm, if any, where memory is limited. It imports math-verify and nothing else of weight.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sys

from dgr_lightning.distributed.processes import die_with_parent

MEMORY_BYTES = 4 * 2**30


def main() -> None:
    """Answers `{"answer", "gold"}` with `{"equal"}`, a line each, until its input ends."""
    die_with_parent(int(sys.argv[1]))
    if sys.platform.startswith("linux"):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    # Replies have a stream of their own: whatever a library prints goes nowhere.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    logging.disable(logging.CRITICAL)

    from math_verify import LatexExtractionConfig, parse, verify

    def equal(answer: str, gold: str) -> bool:
        # LaTeX alone: math-verify's other reader hands text to Python's eval. Without time limits of its own (they are alarm
        # signals, which a long computation in C never sees); the parent has one.
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
        except Exception:  # whatever LaTeX a model writes may break a parser: it is then not the gold answer
            result = False
        replies.write(json.dumps({"equal": result}) + "\n")


if __name__ == "__main__":
    main()
