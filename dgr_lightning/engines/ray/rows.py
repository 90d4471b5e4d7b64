"""Rows of Ray's dataset, one a request: how requests get in, how vLLM is given them, and how results are read.

The first two run in a process of Ray's, on the driver's node.
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
from dgr_lightning.engines.vllm.arguments import sampling_arguments, scoring_arguments
from dgr_lightning.engines.vllm.messages import Generate, Generated, Score, Scored, VllmRequest, VllmResult

REQUEST = "pickled_request"
"""The column that holds a request, beside those that `ray.data.llm` adds."""


class QueueSource(Datasource):
    """A source of rows that reads requests from a queue until there is a None.

    So one dataset serves all requests as long as its engines live, and a request may depend on earlier results.
    """

    def __init__(self, queue: Queue) -> None:
        """Reads from `queue`, which lives in an actor."""
        self._queue = queue

    def estimate_inmemory_data_size(self) -> int | None:
        """Returns None: it is unknown."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        """Returns one task, which yields a block for every request."""
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(partial(_read, self._queue), unknown)]


def _read(queue: Queue) -> Iterator[pyarrow.Table]:
    while (request := queue.get()) is not None:
        yield pyarrow.table({REQUEST: [pickle.dumps(request)]})


def to_prompt(row: dict[str, Any], on_cpu: bool) -> dict[str, Any]:
    """Returns the columns from which `ray.data.llm` makes a request to vLLM: the prompt's tokens, and `SamplingParams`."""
    request: VllmRequest = pickle.loads(row[REQUEST])
    if isinstance(request, Generate):
        return {
            "tokenized_prompt": list(request.prompt_ids),
            "sampling_params": sampling_arguments(request, on_cpu=on_cpu),
        }
    return {"tokenized_prompt": list(request.ids[:-1]), "sampling_params": scoring_arguments(request)}


def to_result(row: dict[str, Any]) -> VllmResult:
    """Returns the result of a request from the row that `ray.data.llm` made of it."""
    request: VllmRequest = pickle.loads(row[REQUEST])
    if isinstance(request, Score):
        return _scored(request, row)
    token_ids = tuple(row["generated_tokens"])
    # The finish reason is not passed on; but a stop token always ends a generation, and is its last token.
    if token_ids and token_ids[-1] in request.stop_ids:
        return Generated(request.request_id, token_ids[:-1], STOP)
    return Generated(request.request_id, token_ids, LENGTH)


def _scored(request: Score, row: dict[str, Any]) -> Scored:
    inner = [
        row["prompt_logprobs"][position][request.ids[position]]["logprob"]
        for position in range(request.num_prompt, len(request.ids) - 1)
    ]
    return Scored(request.request_id, [*inner, row["logprobs"][0][request.ids[-1]]["logprob"]])
