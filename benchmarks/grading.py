"""How long maths grading takes: thousands of pairs, most of them wrong, hard LaTeX among them, and answers that never end.

    python -m benchmarks.grading
    python -m benchmarks.grading --pairs 10000 --poison 2 --golds FILE FILE

FILE is a JSONL whose rows have `answer` (as MATH's and GSM8K's): its gold answers are added to those below. Each pair is an
output with the gold answer of its own problem, or, for the given share, of another one.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for `python benchmarks/grading.py`

from dgr_lightning.scoring.graders.maths import MathsGrader

GOLDS = (
    "42", "-7", "1,250", "0.375", r"\frac{14}{3}", r"3\sqrt{13}", r"\left(3, \frac{\pi}{2}\right)", "x^2 + 2x - 3",
    r"[-2,7]", r"(-\infty,-1)\cup(3,\infty)", r"\{1,2,3\}", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", "6 - 5i",
    "52_8", "y = 2x + 3", r"\int_0^1 x^2 e^{x} dx", r"\sum_{k=1}^{10} \frac{1}{k^2}", r"\lim_{x \to 0} \frac{\sin x}{x}",
    r"\frac{x^2}{2} + \ln|x| + C", r"e^{-t}(\cos 2t + 3 \sin 2t)", r"\frac{1}{(s+1)^2 + 4}", r"\frac{-1 + \sqrt{5}}{2}",
    r"2^{n+1} - n - 2", r"\frac{n(n+1)}{2}", r"\frac{\sin x}{1 + \cos x}", r"\sqrt{x^2+1} - x",
    r"\arctan x + \frac{x}{1+x^2}", r"x \ge -2", r"\text{even}", r"\frac{a+b}{a-b}",
)  # fmt: skip
POISON = (
    r"9^{9^{9^{9^{9}}}}",
    r"\sum_{n=1}^{10^{9}} n^{n}",
    r"\prod_{k=1}^{10^{8}} k",
    r"\int_0^1 x^{x^{x^{x}}} \sin(x^{x}) dx",
)


def pairs_of(golds: list[str], number: int, wrong: float, seed: int) -> list[tuple[str | None, str]]:
    """Returns outputs with gold answers; every output has another number in it, so that no comparison is remembered."""
    draw, pairs = random.Random(seed), []
    for i in range(number):
        gold = draw.choice(golds)
        answer = draw.choice(golds) if draw.random() < wrong else gold
        shift = (
            f" + {i}"
            if draw.random() < 0.5 and not any(mark in gold + answer for mark in ("text", "[", "{1", "=", "_", ","))
            else ""
        )
        pairs.append((f"So the answer is $\\boxed{{{answer}{shift}}}$.", gold + shift))
    return pairs


def main() -> None:
    """Prints seconds and outcomes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--wrong", type=float, default=0.6)
    parser.add_argument("--poison", type=int, default=0, help="answers that never end, added to the pairs")
    parser.add_argument("--golds", nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    golds = list(GOLDS)
    for path in options.golds:
        rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
        golds += [row["answer"].rpartition("####")[2].strip() for row in rows]
    pairs = pairs_of(golds, options.pairs, options.wrong, options.seed)
    pairs += [(f"\\boxed{{{POISON[i % len(POISON)]}+{i}}}", "\\int_0^1 x dx") for i in range(options.poison)]
    random.Random(options.seed).shuffle(pairs)
    with MathsGrader() as grader:
        start = perf_counter()
        grades = grader.grades(pairs)
        seconds = perf_counter() - start
    outcomes = Counter(grade.outcome for grade in grades)
    print(f"{len(pairs):,} gradings in {seconds:.1f} s: {dict(outcomes)}")


if __name__ == "__main__":
    main()
