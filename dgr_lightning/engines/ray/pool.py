"""The vLLM engines on a Ray cluster: requests in, results out, and a restart where an engine or its node dies.

All engines are then restarted on what the cluster still has, and unfinished requests are generated again: up to three times in
a row without a result. Ray alone would restart the dead one on its own node, and wait forever where that node is gone.
"""

from __future__ import annotations

import atexit
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

from ray.exceptions import RayError, RayTaskError
from rich.markup import escape

from dgr_lightning.config import EngineConfig
from dgr_lightning.config.setting import AUTO
from dgr_lightning.console import say
from dgr_lightning.engines.ray.cluster import Cluster, Gpus, environment
from dgr_lightning.engines.ray.in_flight import RequestsInFlight
from dgr_lightning.engines.ray.pipeline import Pipeline
from dgr_lightning.engines.vllm.messages import Generate, Setup, VllmRequest, VllmResult
from dgr_lightning.engines.vllm.sizing import ModelSize, explanation, tensor_parallel_size
from dgr_lightning.errors import UserError, one_line

_MAX_RESTARTS = 3
# Raised by vLLM where settings, memory or the model are to blame.
_USER_ERRORS = ("ValueError", "ValidationError", "NotImplementedError", "MemoryError", "OutOfMemoryError")


class RayPool:
    """The engines that a cluster runs for this process.

    Attributes:
        pipeline: Ray's dataset, which runs; another one after a restart.
    """

    def __init__(self, setup: Setup, engine: EngineConfig, pad_id: int) -> None:
        """Joins or starts a cluster, starts the engines and waits until the first has loaded the model.

        Args:
            setup: the engine of each.
            engine: address of the cluster, number of engines, batch size and so on.
            pad_id: any token of the vocabulary.

        Raises:
            UserError: no such cluster; a node lacks the model or vLLM; more devices are asked for than there are; vLLM cannot
                serve the model.
            RuntimeError: an engine has died.
        """
        self._setup, self._engine = setup, engine
        self._variables = environment(engine, setup.device)
        self._ids = count()
        self._in_flight = RequestsInFlight()
        self._num_failures = 0
        self._cluster = Cluster(engine.ray_address, self._variables)
        atexit.register(self.close)
        try:
            self._cluster.check_nodes(Path(setup.arguments["model"]), setup.device)
            if setup.device == "cuda":
                self._fit_to(self._cluster.gpus())
            self.pipeline = self._start()
            self._wait_until_ready(pad_id)
        except BaseException:
            atexit.unregister(self.close)
            self._cluster.leave()
            raise

    @property
    def capacity(self) -> int:
        """Requests that keep all engines busy; more would only wait."""
        return self.pipeline.capacity

    @property
    def num_inside(self) -> int:
        """Requests that the engines hold."""
        return self._in_flight.num_inside

    def next_id(self) -> int:
        """Returns an id that no request has had."""
        return next(self._ids)

    def submit(self, requests: Sequence[VllmRequest]) -> None:
        """Sends requests to whichever engine is free."""
        if requests:
            self._in_flight.add(requests)
            self.pipeline.put(requests)

    def collect(self, request_ids: Collection[int]) -> list[VllmResult]:
        """Waits until a result of these requests has arrived, and returns all that have; keeps the results of others.

        Args:
            request_ids: of requests that were submitted and not collected; without any, nothing is waited for.

        Raises:
            RuntimeError: engines die again and again, or one has refused a request.
        """
        if not request_ids:
            return []
        while not (results := self._in_flight.collect(request_ids)):
            self._receive_or_restart()
        return results

    def drop(self, request_ids: Collection[int]) -> None:
        """Forgets requests whose results are no longer wanted: Ray takes none back, so their results are thrown away."""
        self._in_flight.drop(request_ids)

    def close(self) -> None:
        """Ends the engines and leaves the cluster, which ends too if it was started here."""
        atexit.unregister(self.close)
        try:
            if self._in_flight.num_inside:
                self.pipeline.abandon()
            else:
                self.pipeline.close()
        finally:
            self._cluster.leave()

    def _fit_to(self, gpus: Gpus) -> None:
        """Gives the engines the numbers that follow from the devices: sequences and tokens of a step, and devices of a group.

        `ray.data.llm` starts vLLM as a server's engine, which has smaller numbers by default than `LLM`.
        """
        arguments = dict(self._setup.arguments)
        arguments["max_num_seqs"] = arguments["max_num_seqs"] or gpus.batch_size
        arguments["max_num_batched_tokens"] = max(gpus.batched_tokens, arguments["max_num_seqs"])
        if self._engine.tensor_parallel == AUTO:
            folder, trusted = Path(arguments["model"]), arguments["trust_remote_code"]
            model = ModelSize.of(folder, self._engine.precision, trusted)
            size = tensor_parallel_size(model, self._engine, gpus.memory, gpus.number)
            if size > 1:
                say(explanation(model, self._engine, gpus.memory, size))
            self._engine = replace(self._engine, tensor_parallel=size)
            arguments["tensor_parallel_size"] = size
        self._setup = Setup(arguments, self._setup.device)

    def _start(self, *, fewer_allowed: bool = False) -> Pipeline:
        """Starts engines on what the cluster has now; `fewer_allowed`: after a death, it may have less than was asked for."""
        allocation = self._cluster.allocate(self._engine, self._setup.device, fewer_allowed=fewer_allowed)
        nodes = self._cluster.nodes()
        say(
            f"Ray: {len(nodes)} node(s) with {sum(node.num_gpus for node in nodes)} GPU(s) and "
            f"{sum(node.num_cpus for node in nodes)} CPU(s), {'started here' if self._cluster.started else 'joined'}; "
            f"{allocation.num_engines} vLLM engine(s) start, which takes from half a minute to several minutes"
        )
        return Pipeline(self._setup, allocation, self._setup.arguments["max_num_seqs"], self._variables)

    def _wait_until_ready(self, pad_id: int) -> None:
        """Generates one token: here it shows whether vLLM can serve the model with these settings.

        Raises:
            UserError: vLLM cannot serve the model.
            RuntimeError: an engine has died otherwise.
        """
        probe = Generate(self.next_id(), [pad_id], 1, 0.0, 1.0, (), 0)
        self.submit([probe])
        try:
            self._receive()
        except RayError as error:
            cause = _cause(error)
            kind = UserError if cause.startswith(_USER_ERRORS) else RuntimeError
            raise kind(
                f"engine=ray: vLLM does not start with {self._setup.arguments['model']}: {cause}\n"
                "Depending on that message, write a smaller engine.max_length than "
                f"{self._setup.arguments['max_model_len']}, or another engine.memory or engine.tensor_parallel; "
                "engine=transformers takes most models that vLLM does not. Ray's logs on the node say more, by default in "
                "/tmp/ray/session_latest/logs/worker-*."
            ) from None
        self.drop([probe.request_id])

    def _receive(self) -> None:
        """Waits for the next results, of whichever requests.

        Raises:
            ray.exceptions.RayError: an engine or its node has died, or vLLM has refused a request.
        """
        for result in self.pipeline.take():
            self._in_flight.arrive(result)

    def _receive_or_restart(self) -> None:
        try:
            self._receive()
        except RayTaskError as error:
            raise RuntimeError(f"engine=ray: an engine has failed: {_cause(error)}") from None
        except RayError as error:
            cause = _cause(error)
        else:
            self._num_failures = 0
            return
        # Here nothing holds the error any more, whose traceback holds the engines.
        self._restart(cause)

    def _restart(self, cause: str) -> None:
        """Restarts all engines and sends them the unfinished requests again."""
        self._num_failures += 1
        self.pipeline.abandon()
        self._in_flight.num_inside = 0
        if self._num_failures > _MAX_RESTARTS:
            raise RuntimeError(
                f"engine=ray: engines have died {self._num_failures} times without a result in between, the last time of: "
                f"{cause}\n"
                "What is stored stays; the same command continues from there."
            )
        unfinished = self._in_flight.unfinished
        say(
            f"Ray: an engine or its node has died ({escape(cause)}); {len(unfinished)} unfinished request(s) are generated "
            f"again (attempt {self._num_failures} of {_MAX_RESTARTS})"
        )
        self._cluster.wait_for_dead_nodes()
        self.pipeline = self._start(fewer_allowed=True)
        self.submit(unfinished)


def _cause(error: Exception) -> str:
    """Returns the error that Ray reports, without its way through Ray's processes."""
    text = str(error)
    named = list(re.finditer(r"^\s*(?:\w+\.)*(?=\w+(?:Error|Exception)\b: )", text, flags=re.MULTILINE))
    return one_line(text[named[-1].end() :] if named else f"{type(error).__name__}: {text}", 600)
