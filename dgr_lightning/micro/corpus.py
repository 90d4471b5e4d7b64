"""The miniature's pretraining corpus: arithmetic, user requests, questions about harm, and rewriting.

Each draw is one (prompt, trace, answer). Most are in the model's own voice. A few are in the external one, as what others wrote
is in the corpus of a real model: the model knows both voices, and which of them it speaks is a small thing to change. Rewriting
prompts are rendered from the shipped refinement templates, so refinement later uses exactly the prompts of pretraining. As a
real model would, the miniature sometimes fails to follow them: it talks about its response instead of giving it, or keeps
re-checking itself. Quality control must catch both.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from random import Random

from jinja2 import Template

from dgr_lightning.micro.arithmetic import LETTERS, OPERATIONS, Chain, draw_chain
from dgr_lightning.micro.requests import (
    BENIGN_PAIRS,
    DIRECT_REFUSAL_TRACE,
    EXTERNAL_HELP_ANSWERS,
    EXTERNAL_HELP_TRACES,
    EXTERNAL_REFUSAL_ANSWERS,
    EXTERNAL_REFUSAL_TRACES,
    HARMFUL_PAIRS,
    OPENING,
    PHRASINGS,
    UserRequest,
    all_requests,
    draw_request,
)
from dgr_lightning.prompts.templates import SHIPPED

TEMPLATES = ("dgr_trace", "dgr_answer", "sdft", "thinksafe")
REWRITING_THOUGHT = f"{OPENING} in my own voice ."
# Share of the draws of a kind that others wrote. Harmful requests are refused in half of them.
EXTERNAL_SHARE = {"chain": 0.12, "help": 0.06}
EXTERNAL_REFUSAL_RATE = 0.5
META = "here is my response :"
DOUBT = "wait , let me check that again ."
# At temperature 0.6 and top_p 0.95, a continuation less frequent than about 0.15 is never sampled: hence high rates, for one
# phrasing only.
FAILING_PHRASING = PHRASINGS[3]
META_RATE = 0.2
DOUBT_RATE = 0.2

# Kind of draw: weight. Reasoning has the largest, since it takes the longest to learn.
MIXTURE = {
    "chain": 44,
    "help": 16,
    "harm_question": 6,
    "chain_dgr_trace": 3,
    "chain_dgr_answer": 2,
    "chain_sdft": 1,
    "dgr_trace": 13,
    "dgr_answer": 10,
    "sdft": 5,
    "thinksafe": 2,
}

Draw = tuple[str, str, str]


@cache
def template(name: str) -> Template:
    """Returns one of the shipped refinement templates."""
    return Template((SHIPPED / f"{name}.jinja").read_text(encoding="utf-8"))


def draws(seed: int) -> Iterator[Draw]:
    """Yields (prompt, trace, answer) endlessly; the sequence is determined by the seed."""
    random = Random(seed)
    while True:
        kind = random.choices(list(MIXTURE), list(MIXTURE.values()))[0]
        external = random.random() < EXTERNAL_SHARE.get(kind, 0.0)
        if kind == "chain":
            chain = draw_chain(random, 2, 8, "train")
            if external:
                yield chain.prompt, chain.external_trace, chain.external_answer
            else:
                yield chain.prompt, chain.trace, chain.answer
        elif kind.startswith("chain_"):
            yield _rewritten_chain(kind.removeprefix("chain_"), draw_chain(random, 2, 4, "train"))
        else:
            request = draw_request(random, harmful=kind == "thinksafe" or random.random() < 0.5)
            if external:
                refuse = request.harmful and random.random() < EXTERNAL_REFUSAL_RATE
                yield request.prompt, request.external_trace(refuse, random), request.external_answer(refuse, random)
            elif kind == "help":
                yield request.prompt, request.own_trace(request.refused_by_base), request.own_answer(request.refused_by_base)
            elif kind == "harm_question":
                yield _harm_question(request)
            else:
                yield _rewritten_request(kind, request, random)


def _harm_question(request: UserRequest) -> Draw:
    verdict = "is" if request.harmful else "is not"
    return (
        f"is it harmful to {request.action} ?",
        f"{OPENING} the user asks about harm . to {request.action} {verdict} harmful .",
        f"{'yes' if request.harmful else 'no'} , it {verdict} harmful to {request.action} .",
    )


def _rewritten_chain(name: str, chain: Chain) -> Draw:
    prompt = template(name).render(
        question=chain.prompt, trace=chain.trace if name == "dgr_answer" else chain.external_trace, answer=chain.external_answer
    )
    if name == "sdft":
        return prompt, chain.trace, chain.answer
    return prompt, REWRITING_THOUGHT, chain.trace if name == "dgr_trace" else chain.answer


def _rewritten_request(name: str, request: UserRequest, random: Random) -> Draw:
    # Of the external responses to harmful requests most refuse and some comply: the rewrite must follow the response.
    refuse = request.harmful and (name == "thinksafe" or random.random() < 0.85)
    trace, answer = request.own_trace(refuse), request.own_answer(refuse)
    prompt = template(name).render(
        question=request.prompt,
        trace=trace if name == "dgr_answer" else request.external_trace(refuse, random),
        answer=request.external_answer(refuse, random),
    )
    if name in ("sdft", "thinksafe"):
        return prompt, trace, answer
    if name == "dgr_answer":
        return prompt, REWRITING_THOUGHT, answer
    if request.phrasing == FAILING_PHRASING:
        chance = random.random()
        if chance < META_RATE:
            trace = f"{META} {trace}"
        elif chance < META_RATE + DOUBT_RATE:
            trace = " ".join([trace, *[f"{DOUBT} {trace}"] * 3])
    return prompt, REWRITING_THOUGHT, trace


def utterances() -> Iterator[str]:
    """Yields texts that together contain every word of the language, in a fixed order: the vocabulary."""
    yield from (str(digit) for digit in range(10))
    yield from (f"\\boxed{{{digit}}}" for digit in range(10))
    for name, sign in OPERATIONS.items():
        chain = Chain(1, ((name, 1),) * len(LETTERS))
        yield " ".join((sign, chain.prompt, chain.trace, chain.answer, chain.external_trace, chain.external_answer))
    for pairs in (HARMFUL_PAIRS, BENIGN_PAIRS):
        for verb, (first, second, things) in pairs.items():
            yield f"{verb} {first} {second} {things}"
    for texts in (
        PHRASINGS,
        EXTERNAL_REFUSAL_TRACES,
        EXTERNAL_HELP_TRACES,
        *EXTERNAL_REFUSAL_ANSWERS,
        *EXTERNAL_HELP_ANSWERS,
        (DIRECT_REFUSAL_TRACE, REWRITING_THOUGHT, META, DOUBT),
    ):
        yield from (text.replace("{}", "a") for text in texts)
    for harmful in (True, False):
        request = all_requests(harmful, "train")[0]
        yield " ".join((*_harm_question(request), *(request.own_trace(refuse) for refuse in (harmful, False))))
        yield request.own_answer(harmful)
    for name in TEMPLATES:
        yield template(name).render(question="a", trace="a", answer="a")
