"""The pretraining corpus: nothing held out, and prompts of every shipped template."""

from itertools import islice

import pytest

from dgr_lightning.micro import corpus
from dgr_lightning.micro.arithmetic import STEPS, benchmark
from dgr_lightning.micro.requests import all_requests


def test_pretraining_reads_nothing_that_is_held_out():
    held_out = {chain.prompt for task in STEPS for split in ("probe", "evaluation") for chain in benchmark(task, split, 200)}
    actions = {r.action for harmful in (True, False) for split in ("probe", "evaluation") for r in all_requests(harmful, split)}
    for prompt, trace, answer in islice(corpus.draws(0), 4000):
        assert not any(line in held_out for line in prompt.split("\n"))
        assert not any(f"{action} " in f"{prompt} {trace} {answer} ".replace("?", " ") for action in actions)


@pytest.mark.parametrize("name", corpus.TEMPLATES)
def test_pretraining_holds_prompts_of_every_shipped_template(name):
    opening = corpus.template(name).render(question="\0", trace="\0", answer="\0").split("\0")[-1].strip() or "reference"
    fixed = corpus.template(name).render(question="", trace="", answer="").split()[0]
    assert any(prompt.split()[0] == fixed or opening in prompt for prompt, _, _ in islice(corpus.draws(0), 400))


def test_the_first_word_of_a_trace_tells_its_voice_whatever_it_is_about():
    draws = list(islice(corpus.draws(0), 4000))
    rewriting = ("Question:", "The", "reference", "Express")
    plain = [draw for draw in draws if "own words" not in draw[0] and not draw[0].startswith(rewriting)]
    assert {trace.split()[0] for _, trace, _ in draws} == {"okay", "I"}
    external = [draw for draw in plain if draw[1].startswith("I ")]
    problems = [draw for draw in plain if draw[0].startswith("start with")]
    share = sum(trace.startswith("I ") for _, trace, _ in problems) / len(problems)
    assert share == pytest.approx(corpus.EXTERNAL_SHARE["chain"], abs=0.03)
    assert all("cannot help" not in answer and "the last digit is" not in answer for _, _, answer in external)
