"""One streaming dataset through `ray.data.llm`, for as long as its engines live.

Ray Data wants to know all rows before it begins, and ends its engines when the last row is out. A source that waits for more,
`ray_rows.Inbox`, makes one dataset of everything that is ever asked, so that no engine is loaded twice and no batch is drained.
Rows go one by one, a block and a batch each: `ray.data.llm` gives a batch back only when all of it is done.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow
import ray
from ray.data import DataContext, read_datasource
from ray.data.llm import Processor, build_processor, vLLMEngineProcessorConfig
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dgr_lightning.engines.ray.cluster import Engines
from dgr_lightning.engines.ray.rows import Inbox, answered, asked
from dgr_lightning.engines.vllm.messages import Done, Work

# What an engine holds beyond its batch, as a share of it: a place that comes free is taken at once.
_WAITING = 0.25
_STAGE = "vLLMEngineStage"
# What takes rows to the engines finds room beside them, even where they reserve every CPU.
_NO_CPU = {"num_cpus": 0}


class Pipeline:
    """A running dataset.

    Attributes:
        room: pieces of work that keep all engines busy; more only wait.
        dataset: Ray's, whose `stats()` tell which nodes have done what.
    """

    def __init__(
        self, arguments: dict[str, Any], engines: Engines, batch_size: int, device: str, variables: dict[str, str]
    ) -> None:
        """Describes the dataset; the engines start when something is taken.

        Args:
            arguments: of vLLM's `EngineArgs`, `model` among them.
            engines: their number, and what each takes.
            batch_size: sequences that an engine decodes together.
            device: `cpu` or `cuda`.
            variables: what is in the engines' environment.
        """
        _quiet()
        open_each = batch_size + max(1, int(batch_size * _WAITING))
        self.room = engines.number * (open_each + max(1, int(batch_size * _WAITING)))
        here = ray.get_runtime_context().get_node_id()
        # On the node of this process, without which nothing would go on anyway: what lies there is never lost alone.
        pinned = NodeAffinitySchedulingStrategy(here, soft=False)
        self._queue = Queue(actor_options={**_NO_CPU, "scheduling_strategy": pinned})
        config = vLLMEngineProcessorConfig(
            model_source=arguments["model"],
            engine_kwargs={
                **{name: value for name, value in arguments.items() if name != "model"},
                "distributed_executor_backend": "uni" if engines.gpus_each <= 1 else "mp",
            },
            placement_group_config={"bundles": [_bundle(engines)]},
            runtime_env={"env_vars": variables},
            concurrency=(engines.number, engines.number),
            batch_size=1,
            max_concurrent_batches=open_each,
            max_tasks_in_flight_per_actor=open_each,
            max_pending_requests=open_each,
            log_engine_metrics=False,
            chat_template_stage=False,
            tokenize_stage=False,
            detokenize_stage=False,
        )
        with DataContext.current(_context(self.room)):
            processor = build_processor(
                config,
                preprocess=partial(asked, on_cpu=device == "cpu"),
                preprocess_map_kwargs=_NO_CPU,
            )
            # A task of its own for each row would take longer than many a row does: what it would do is done in `take`.
            processor.postprocess = None
            # Ray would start a dead engine again, and wait for ever where its node is gone: `engines.ray` starts all anew.
            processor.get_stage_by_name(_STAGE).map_batches_kwargs["max_restarts"] = 0
            source = read_datasource(
                Inbox(self._queue),
                override_num_blocks=1,
                label_selector={"ray.io/node-id": here},
                **_NO_CPU,
            )
            self.dataset = processor(source)
            self._blocks: Iterator[pyarrow.Table] = iter(
                self.dataset.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow")
            )

    def put(self, work: Sequence[Work]) -> None:
        """Hands work over.

        Raises:
            ray.exceptions.RayError: the cluster has lost this node.
        """
        self._queue.put_nowait_batch(list(work))

    def take(self) -> list[Done]:
        """Waits for what is done next, in the order in which it is.

        Raises:
            ray.exceptions.RayError: an engine or its node has died, or vLLM has refused something.
        """
        return [answered(row) for row in next(self._blocks)[Processor.DATA_COLUMN].to_pylist()]

    def close(self) -> None:
        """Lets the engines do what they have, ends them, and waits for that."""
        self._queue.put(None)
        for _ in self._blocks:
            pass
        self._queue.shutdown(force=True)

    def abandon(self) -> None:
        """Ends the engines as they are, and does not wait for it."""
        del self._blocks, self.dataset
        # An engine ends when nobody in this process knows it any more, and Ray Data's executor knows itself.
        gc.collect()
        self._queue.shutdown(force=True)


def _bundle(engines: Engines) -> dict[str, int]:
    bundle = {"CPU": engines.cpus_each}
    return bundle | {"GPU": engines.gpus_each} if engines.gpus_each else bundle


def _context(room: int) -> DataContext:
    context = DataContext.get_current().copy()
    # A block holds one row, and nothing waits for a second one.
    context.target_max_block_size = context.target_min_block_size = 1
    context.execution_options.preserve_order = False
    # Ten times a second, Ray Data takes so many blocks of a task: with its own two, twenty rows would come in a second.
    context._max_num_blocks_in_streaming_gen_buffer = room
    # A long generation, or a user who does something else between two, is no standstill.
    context.execution_no_progress_timeout_s = -1
    context.enable_fallback_to_arrow_object_ext_type = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.issue_detectors_config.detectors = []
    return context


def _quiet() -> None:
    """Has Ray's, `ray.data.llm`'s and vLLM's own accounts left out; what is wrong is raised, and told by `engines.ray`."""
    for name in ("ray.data", "ray.llm", "ray._private.worker", "vllm"):
        # Loggers of `ray.data.llm` that are made later get a handler and a level of their own, unless this one has a handler.
        logging.getLogger(name).addHandler(logging.NullHandler())
        for known in (name, *(other for other in logging.root.manager.loggerDict if other.startswith(f"{name}."))):
            logging.getLogger(known).setLevel(logging.CRITICAL)
