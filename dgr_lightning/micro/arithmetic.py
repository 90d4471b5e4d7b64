"""The miniature's reasoning problems: chains of additions, subtractions and multiplications modulo 10.

`start with 9 , step a : subtract 5 , step b : multiply 8 . last digit ?` has one trace in the model's own voice, step by
step, and one boxed digit as its answer. Steps carry letters because a small model without them takes several times longer to
learn its position in the chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from random import Random

from dgr_lightning.micro.requests import OPENING

LETTERS = "abcdefgh"
# The external voice stops after so many steps.
EXTERNAL_STEPS = 4
OPERATIONS = {"add": "+", "subtract": "-", "multiply": "*"}
STEPS = {"micro-short": (2, 3), "micro-medium": (4, 5), "micro-long": (7, 8)}


@dataclass(frozen=True)
class Chain:
    """A problem: a start digit and the operations applied to it, as (name, operand) pairs."""

    start: int
    steps: tuple[tuple[str, int], ...]

    @property
    def prompt(self) -> str:
        """The problem as a user states it."""
        steps = " , ".join(f"step {LETTERS[i]} : {name} {operand}" for i, (name, operand) in enumerate(self.steps))
        return f"start with {self.start} , {steps} . last digit ?"

    @property
    def values(self) -> list[int]:
        """The digit after each step."""
        values, value = [], self.start
        for name, operand in self.steps:
            value = {"add": value + operand, "subtract": value - operand, "multiply": value * operand}[name] % 10
            values.append(value)
        return values

    @property
    def digit(self) -> int:
        """The last digit: the gold answer."""
        return self.values[-1]

    @property
    def trace(self) -> str:
        """The reasoning in the model's own voice."""
        before = [self.start, *self.values]
        steps = " ".join(
            f"step {LETTERS[i]} : {before[i]} {OPERATIONS[name]} {operand} = {before[i + 1]} ."
            for i, (name, operand) in enumerate(self.steps)
        )
        return f"{OPENING} {steps}"

    @property
    def answer(self) -> str:
        """The answer in the model's own voice."""
        return f"the last digit is \\boxed{{{self.digit}}} ."

    @property
    def external_trace(self) -> str:
        """The reasoning in the external voice, which works through the first four steps alone."""
        before = [self.start, *self.values]
        steps = " ".join(
            f"step {LETTERS[i]} : {before[i]} {OPERATIONS[name]} {operand} makes {before[i + 1]} ."
            for i, (name, operand) in enumerate(self.steps[:EXTERNAL_STEPS])
        )
        return f"I begin at {self.start} . {steps}"

    @property
    def external_answer(self) -> str:
        """The answer in the external voice: where its reasoning stopped, right or not."""
        return f"hence one obtains \\boxed{{{self.values[:EXTERNAL_STEPS][-1]}}} in the end ."

    @property
    def split(self) -> str:
        """train, probe or evaluation, chosen by a hash of the problem, so that the three are disjoint."""
        bucket = sha256(self.prompt.encode()).digest()[0] % 10
        return "probe" if bucket == 0 else "evaluation" if bucket in (1, 2) else "train"


def draw_chain(random: Random, shortest: int, longest: int, split: str) -> Chain:
    """Draws a problem of a split, its number of steps uniform between `shortest` and `longest`."""
    while True:
        steps = tuple((random.choice(list(OPERATIONS)), random.randint(2, 9)) for _ in range(random.randint(shortest, longest)))
        chain = Chain(random.randint(1, 9), steps)
        if chain.split == split:
            return chain


def benchmark(task: str, split: str, size: int) -> list[Chain]:
    """Returns `size` distinct problems of a task's split, the same on every machine."""
    random = Random(f"{task} {split}")
    chains: dict[str, Chain] = {}
    while len(chains) < size:
        chain = draw_chain(random, *STEPS[task], split)
        chains.setdefault(chain.prompt, chain)
    return list(chains.values())
