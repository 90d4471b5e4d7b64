"""One streaming dataset through `ray.data.llm`, for as long as its engines live.

Ray Data expects all rows when it begins, and ends its engines after the last row. A source that waits for more requests,
`rows.QueueSource`, puts all of them into one dataset, so that no engine is loaded twice and no batch is drained. Each row is a
block and a batch: `ray.data.llm` returns a batch only when all of it is done.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator, Sequence
from functools import partial

import pyarrow
import ray
from ray.data import DataContext, read_datasource
from ray.data.llm import Processor, build_processor, vLLMEngineProcessorConfig
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dgr_lightning.engines.ray.cluster import Allocation
from dgr_lightning.engines.ray.rows import QueueSource, to_prompt, to_result
from dgr_lightning.engines.vllm.messages import Setup, VllmRequest, VllmResult

# Requests that an engine holds beyond its batch, as a share of it: a slot that becomes free is filled at once.
_WAITING = 0.25
_STAGE = "vLLMEngineStage"
# The tasks that carry rows to the engines run beside them even where those reserve every CPU.
_NO_CPU = {"num_cpus": 0}


class Pipeline:
    """A running dataset.

    Attributes:
        capacity: requests that keep all engines busy; more would only wait.
        dataset: Ray's, whose `stats()` tell which node has processed what.
    """

    def __init__(self, setup: Setup, allocation: Allocation, batch_size: int, variables: dict[str, str]) -> None:
        """Describes the dataset; the engines start at the first `take`.

        Args:
            setup: the engine of each process; `model` is among its arguments.
            allocation: number of engines, and the devices of each.
            batch_size: sequences that an engine decodes together.
            variables: of the engines' environment.
        """
        _silence_loggers()
        open_each = batch_size + max(1, int(batch_size * _WAITING))
        self.capacity = allocation.num_engines * (open_each + max(1, int(batch_size * _WAITING)))
        here = ray.get_runtime_context().get_node_id()
        # On the driver's node, without which nothing would go on anyway: its death alone cannot lose the queue.
        pinned = NodeAffinitySchedulingStrategy(here, soft=False)
        self._queue = Queue(actor_options={**_NO_CPU, "scheduling_strategy": pinned})
        config = vLLMEngineProcessorConfig(
            model_source=setup.arguments["model"],
            engine_kwargs={
                **{name: value for name, value in setup.arguments.items() if name != "model"},
                "distributed_executor_backend": "uni" if allocation.gpus_each <= 1 else "mp",
            },
            placement_group_config={"bundles": [_bundle(allocation)]},
            runtime_env={"env_vars": variables},
            concurrency=(allocation.num_engines, allocation.num_engines),
            batch_size=1,
            max_concurrent_batches=open_each,
            max_tasks_in_flight_per_actor=open_each,
            max_pending_requests=open_each,
            log_engine_metrics=False,
            chat_template_stage=False,
            tokenize_stage=False,
            detokenize_stage=False,
        )
        with DataContext.current(_context(self.capacity)):
            processor = build_processor(
                config,
                preprocess=partial(to_prompt, on_cpu=setup.device == "cpu"),
                preprocess_map_kwargs=_NO_CPU,
            )
            # A separate task for each row would take longer than many a row does: `take` does its work.
            processor.postprocess = None
            # Ray would restart a dead engine, and wait forever where its node is gone: `ray.pool` restarts all of them.
            processor.get_stage_by_name(_STAGE).map_batches_kwargs["max_restarts"] = 0
            source = read_datasource(
                QueueSource(self._queue),
                override_num_blocks=1,
                label_selector={"ray.io/node-id": here},
                **_NO_CPU,
            )
            self.dataset = processor(source)
            self._blocks: Iterator[pyarrow.Table] = iter(
                self.dataset.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow")
            )

    def put(self, requests: Sequence[VllmRequest]) -> None:
        """Sends requests to the engines.

        Raises:
            ray.exceptions.RayError: the cluster has lost this node.
        """
        self._queue.put_nowait_batch(list(requests))

    def take(self) -> list[VllmResult]:
        """Waits for the next results, in the order in which requests finish.

        Raises:
            ray.exceptions.RayError: an engine or its node has died, or vLLM has refused a request.
        """
        return [to_result(row) for row in next(self._blocks)[Processor.DATA_COLUMN].to_pylist()]

    def close(self) -> None:
        """Lets the engines finish their requests, ends them, and waits for that."""
        self._queue.put(None)
        for _ in self._blocks:
            pass
        self._queue.shutdown(force=True)

    def abandon(self) -> None:
        """Ends the engines at once, and does not wait for that."""
        del self._blocks, self.dataset
        # An engine ends when nothing in this process refers to it, and Ray Data's executor is part of a reference cycle.
        gc.collect()
        self._queue.shutdown(force=True)


def _bundle(allocation: Allocation) -> dict[str, int]:
    bundle = {"CPU": allocation.cpus_each}
    return bundle | {"GPU": allocation.gpus_each} if allocation.gpus_each else bundle


def _context(capacity: int) -> DataContext:
    context = DataContext.get_current().copy()
    # A block holds one row, and nothing waits for a second one.
    context.target_max_block_size = context.target_min_block_size = 1
    context.execution_options.preserve_order = False
    # Ten times a second, Ray Data takes up to this many blocks from a task: with its default of two, twenty rows a second.
    context._max_num_blocks_in_streaming_gen_buffer = capacity
    # A long generation, or a pause between two, is no lack of progress.
    context.execution_no_progress_timeout_s = -1
    context.enable_fallback_to_arrow_object_ext_type = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.issue_detectors_config.detectors = []
    return context


def _silence_loggers() -> None:
    """Silences the loggers of Ray, `ray.data.llm` and vLLM: errors are raised, and `ray.pool` reports them."""
    for name in ("ray.data", "ray.llm", "ray._private.worker", "vllm"):
        # Loggers that `ray.data.llm` creates later set their own handler and level, unless this one has a handler.
        logging.getLogger(name).addHandler(logging.NullHandler())
        for known in (name, *(other for other in logging.root.manager.loggerDict if other.startswith(f"{name}."))):
            logging.getLogger(known).setLevel(logging.CRITICAL)
