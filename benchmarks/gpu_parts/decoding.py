"""Part 7: the decoding of in-training evaluation (`probes`): fp32 weights in training, bf16 computation, many sequences."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from time import perf_counter

import torch

from benchmarks.gpu_parts.models import DRY
from benchmarks.gpu_parts.part import Line, Setup, bytes_on_top, synchronize
from benchmarks.sft_throughput import SHAPES, random_model
from dgr_lightning.engines.engine import Request, Sampling
from dgr_lightning.engines.transformers.engine import TransformersEngine
from dgr_lightning.models.weights import linear_weights_in


class Ids:
    """A decoder whose text is the ids."""

    pad_id = 0

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the ids."""
        return " ".join(map(str, ids))


def prove(setup: Setup) -> Iterator[Line]:
    """Yields the time of a decoding step, for outputs that all reach the limit."""
    shape = DRY if setup.dry else SHAPES["1.5B"]
    batch, (few, many) = (6, (4, 12)) if setup.dry else (96, (64, 512))
    model = random_model(shape, str(setup.device))
    engine = TransformersEngine(model, Ids(), "bf16", batch)
    rng = random.Random(0)
    requests = [
        Request(str(number), tuple(rng.randrange(shape.vocabulary) for _ in range(rng.randint(60, 180))))
        for number in range(batch)
    ]

    def decode(num_tokens: int) -> float:
        sampling = Sampling(temperature=0.0, top_p=1.0, max_new_tokens=num_tokens, seed=0, stop_ids=())
        synchronize()
        start = perf_counter()
        with linear_weights_in(model, torch.bfloat16):  # as the probes do on a GPU
            completions = list(engine.generate(requests, sampling))
        assert all(len(completion.token_ids) == num_tokens for completion in completions)
        return perf_counter() - start

    first = decode(few)
    short, seconds = decode(few), []
    memory = bytes_on_top(lambda: seconds.append(decode(many)), setup.device)
    step = (seconds[0] - short) / (many - few)  # without the prefill
    yield {
        "case": f"{batch} sequences of {many} tokens",
        "first_seconds": first,
        "prefill_and_start_seconds": short - few * step,
        "step_ms": 1000 * step,
        "tokens_per_second": batch / step,
        "bytes_on_top": memory,
    }
