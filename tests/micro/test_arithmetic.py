"""Chains of arithmetic: right modulo ten, of their length, in disjoint splits."""

import pytest

from dgr_lightning.micro.arithmetic import STEPS, Chain, benchmark


def test_arithmetic_is_right_modulo_ten():
    chain = Chain(9, (("subtract", 5), ("multiply", 8), ("subtract", 7)))
    assert chain.values == [4, 2, 5]
    assert chain.trace == "okay , step a : 9 - 5 = 4 . step b : 4 * 8 = 2 . step c : 2 - 7 = 5 ."
    assert chain.answer == r"the last digit is \boxed{5} ."


@pytest.mark.parametrize("task", STEPS)
def test_benchmarks_are_distinct_disjoint_and_of_their_length(task):
    problems = {split: benchmark(task, split, 60) for split in ("probe", "evaluation")}
    prompts = {split: {chain.prompt for chain in chains} for split, chains in problems.items()}
    assert all(len(prompts[split]) == 60 for split in prompts)
    assert not prompts["probe"] & prompts["evaluation"]
    assert {len(chain.steps) for chain in problems["evaluation"]} == set(STEPS[task])


def test_the_external_voice_stops_after_four_steps():
    chain = Chain(1, (("add", 2),) * 5)
    assert chain.external_trace == (
        "I begin at 1 . step a : 1 + 2 makes 3 . step b : 3 + 2 makes 5 . step c : 5 + 2 makes 7 . step d : 7 + 2 makes 9 ."
    )
    assert chain.external_answer == r"hence one obtains \boxed{9} in the end ."
    assert chain.digit == 1
    assert Chain(1, (("add", 2),)).external_answer == r"hence one obtains \boxed{3} in the end ."
