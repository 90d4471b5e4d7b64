"""What goes through Ray's dataset, a row a piece of work: how it gets in, what vLLM is asked for, and what came of it.

The first two run in a process of Ray's, on the node of the process that drives.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow
from ray.data import DataContext, Datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask
from ray.util.queue import Queue

from dgr_lightning.engines.engine import LENGTH, STOP
from dgr_lightning.engines.vllm.messages import Done, Generate, Generated, Score, Scored, Work

WORK = "work"


class Inbox(Datasource):
    """A source that does not end before it is told: work that is put into a queue, until there is a None.

    So one dataset takes what comes as long as its engines live, and requests may follow from what has come out of it.
    """

    def __init__(self, queue: Queue) -> None:
        """Reads from `queue`, which lives in an actor."""
        self._queue = queue

    def estimate_inmemory_data_size(self) -> int | None:
        """Returns None: nobody knows."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        """Returns one task, which yields a block for every piece of work."""
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(partial(_read, self._queue), unknown)]


def _read(queue: Queue) -> Iterator[pyarrow.Table]:
    while (work := queue.get()) is not None:
        yield pyarrow.table({WORK: [pickle.dumps(work)]})


def asked(row: dict[str, Any], on_cpu: bool) -> dict[str, Any]:
    """Returns what `ray.data.llm` makes a request to vLLM of: the prompt's tokens, and arguments of `SamplingParams`."""
    from vllm.sampling_params import RequestOutputKind

    work: Work = pickle.loads(row[WORK])
    settings = {
        "temperature": 0.0,
        "ignore_eos": True,
        "detokenize": False,
        # Nothing for every single token. As no type of Arrow's, it also has the row travel as it is: Arrow would make floats
        # of numbers that stand beside one.
        "output_kind": RequestOutputKind.FINAL_ONLY,
    }
    if isinstance(work, Generate):
        settings |= {"max_tokens": work.max_tokens, "stop_token_ids": list(work.stop_ids)}
        if work.temperature > 0 and on_cpu:
            from dgr_lightning.engines.vllm.noise import noise_arguments

            settings["extra_args"] = noise_arguments(work.stream, work.temperature, work.top_p)
        elif work.temperature > 0:
            # vLLM takes -1 for no seed at all.
            settings |= {"temperature": work.temperature, "top_p": work.top_p, "seed": work.stream & (2**63 - 1)}
        return {"tokenized_prompt": list(work.prompt_ids), "sampling_params": settings}
    # The last token is not read, but asked for: a text as long as the model's positions can so be scored.
    settings |= {"max_tokens": 1, "logprob_token_ids": [work.ids[-1]]}
    if len(work.ids) - 1 > work.num_prompt:
        settings["prompt_logprobs"] = 0
    return {"tokenized_prompt": list(work.ids[:-1]), "sampling_params": settings}


def answered(row: dict[str, Any]) -> Done:
    """Returns what became of the work, of all that `ray.data.llm` tells."""
    work: Work = pickle.loads(row[WORK])
    if isinstance(work, Score):
        return _scored(work, row)
    token_ids = tuple(row["generated_tokens"])
    # Why a generation ended is not handed on; a stop token always ends one, and is the last.
    if token_ids and token_ids[-1] in work.stop_ids:
        return Generated(work.number, token_ids[:-1], STOP)
    return Generated(work.number, token_ids, LENGTH)


def _scored(work: Score, row: dict[str, Any]) -> Scored:
    inner = [
        row["prompt_logprobs"][position][work.ids[position]]["logprob"]
        for position in range(work.num_prompt, len(work.ids) - 1)
    ]
    return Scored(work.number, [*inner, row["logprobs"][0][work.ids[-1]]["logprob"]])
