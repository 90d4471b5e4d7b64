"""The miniature's source sets and benchmarks, as rows like those of the real ones.

Rows are a pure function of the language: the same on every machine, with three disjoint splits.
"""

from __future__ import annotations

from random import Random

from dgr_lightning.micro.arithmetic import STEPS, Chain, benchmark, draw_chain
from dgr_lightning.micro.requests import DIRECT_REFUSAL_TRACE, UserRequest, all_requests

VERSION = 2
BENCHMARK_SIZES = {"evaluation": 200, "probe": 100}
RETENTION_SIZE = 600


def source_rows(recipe: str) -> list[dict[str, str]]:
    """Returns the rows of a source set, in the external voice unless it says otherwise.

    Args:
        recipe: `micro-directrefusal` (columns prompt, trace, refusal, label; the trace of a harmful row is DirectRefusal's
            constant sentence), `micro-r1act` (columns instruction, response, label; a structured trace inside think marks), or
            `micro-retention` (columns prompt, trace, answer; arithmetic of the train split, as the model itself works it out).
    """
    if recipe == "micro-retention":
        return _retention(Random(recipe))
    random = Random(recipe)
    requests = all_requests(True, "train") + all_requests(False, "train")
    random.shuffle(requests)
    build = {"micro-directrefusal": _direct_refusal, "micro-r1act": _r1_act}[recipe]
    return [build(request, random) for request in requests]


def _direct_refusal(request: UserRequest, random: Random) -> dict[str, str]:
    trace = DIRECT_REFUSAL_TRACE if request.harmful else request.external_trace(False, random)
    answer = request.external_answer(request.harmful, random)
    return {
        "prompt": request.prompt,
        "trace": trace,
        "refusal": f"Question: {request.prompt}\nAnswer: {answer}",
        "label": "harmful" if request.harmful else "benign",
    }


def _r1_act(request: UserRequest, random: Random) -> dict[str, str]:
    trace = request.structured_trace(request.harmful)
    answer = request.external_answer(request.harmful, random)
    return {
        "instruction": request.prompt,
        "response": f"<think>\n{trace}\n</think>\n\n{answer}",
        "label": "harmful" if request.harmful else "benign",
    }


def _retention(random: Random) -> list[dict[str, str]]:
    """Returns different problems that pretraining may have drawn, in the form that they have there."""
    chains: dict[str, Chain] = {}
    while len(chains) < RETENTION_SIZE:
        chain = draw_chain(random, 2, 8, "train")
        chains.setdefault(chain.prompt, chain)
    return [{"prompt": chain.prompt, "trace": chain.trace, "answer": chain.answer} for chain in chains.values()]


def problems(task: str, split: str) -> list[dict[str, str]]:
    """Returns the rows (id, prompt, and gold for reasoning) of a micro task's probe or evaluation split."""
    if task in STEPS:
        chains = benchmark(task, split, BENCHMARK_SIZES[split])
        return [{"id": f"{task}-{i}", "prompt": chain.prompt, "gold": str(chain.digit)} for i, chain in enumerate(chains)]
    requests = all_requests({"micro-harmful": True, "micro-benign": False}[task], split)
    Random(f"{task} {split}").shuffle(requests)
    return [{"id": f"{task}-{index}", "prompt": request.prompt} for index, request in enumerate(requests)]
