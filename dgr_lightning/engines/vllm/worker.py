"""The process in which one vLLM engine runs, on one GPU, one tensor-parallel group, or the CPU.

`vllm.process` starts it by `python -m dgr_lightning.engines.vllm.worker <socket> <parent>`. The loop is vLLM's own,
`add_request` and `step`, all of it in this one process: vLLM's usual second process, the scheduler, outlives a parent that is
killed. A thread reads messages from the socket while a step runs, so that the parent never waits to send, and only finished
requests are sent back, not single tokens.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from dgr_lightning.engines.engine import LENGTH, STOP
from dgr_lightning.engines.vllm.arguments import sampling_arguments, scoring_arguments
from dgr_lightning.engines.vllm.messages import (
    Drop,
    Generate,
    Generated,
    Ready,
    Refused,
    Score,
    Scored,
    Setup,
    VllmRequest,
    VllmResult,
)
from dgr_lightning.errors import one_line
from dgr_lightning.processes import die_with_parent

Messages = list[VllmRequest | Drop]

# vLLM serves the lower number first: a score is a single step, and its caller is blocked until it arrives.
_GENERATION, _SCORE = 1, 0


def main() -> None:
    """Runs an engine until the parent closes the socket."""
    die_with_parent(int(sys.argv[2]))
    connection = Connection(int(sys.argv[1]))
    # If a process that vLLM starts inherited the socket, the parent would not notice the end of this one.
    os.set_inheritable(connection.fileno(), False)
    try:
        worker = Worker(connection.recv())
    except Exception as error:
        traceback.print_exc()
        connection.send(Refused(one_line(f"{type(error).__name__}: {error}", 300), _is_user_error(error)))
        sys.exit(1)
    try:
        connection.send(Ready(worker.max_length, worker.batch_size))
        worker.serve(connection)
    finally:
        worker.close()
    # A regular exit of an interpreter that holds vLLM takes seconds.
    os._exit(0)


class Worker:
    """A vLLM engine and the requests in it.

    Attributes:
        max_length: tokens that prompt and output may have together.
        batch_size: sequences that are decoded together.
    """

    def __init__(self, setup: Setup) -> None:
        """Loads the model; exceptions of vLLM are not caught."""
        from vllm import SamplingParams
        from vllm.engine.arg_utils import EngineArgs
        from vllm.inputs.engine import tokens_input
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.llm_engine import LLMEngine

        arguments: dict[str, Any] = dict(setup.arguments)
        self._on_cpu = setup.device == "cpu"
        if self._on_cpu:
            from dgr_lightning.engines.vllm.noise import RequestNoise

            arguments["logits_processors"] = [RequestNoise]
        # Sequences and tokens of a step are, where nothing names them, those for throughput on this device, as in vLLM's `LLM`:
        # on an H100 1,024 and 16,384. Without a context they are 128 and 2,048, which is what a CPU is left at.
        context = UsageContext.ENGINE_CONTEXT if self._on_cpu else UsageContext.LLM_CLASS
        self._engine = LLMEngine.from_engine_args(EngineArgs(**arguments), usage_context=context)
        self.max_length: int = self._engine.model_config.max_model_len
        self.batch_size: int = self._engine.vllm_config.scheduler_config.max_num_seqs
        self._open: dict[str, VllmRequest] = {}
        self._tokens_input, self._params = tokens_input, SamplingParams

    def serve(self, connection: Connection) -> None:
        """Serves the requests that come over the socket, until it is closed."""
        inbox: SimpleQueue[Messages | None] = SimpleQueue()
        threading.Thread(target=_receive, args=(connection, inbox), daemon=True).start()
        while True:
            while not self._open or not inbox.empty():
                messages = inbox.get()
                if messages is None:
                    return
                for message in messages:
                    self._handle(message)
            results = self._step()
            if results:
                try:
                    connection.send(results)
                except OSError:  # the parent has closed the socket
                    return

    def close(self) -> None:
        """Ends the processes that vLLM has started."""
        self._engine.engine_core.shutdown()

    def _handle(self, message: VllmRequest | Drop) -> None:
        if isinstance(message, Drop):
            self._engine.abort_request([str(id_) for id_ in message.request_ids if self._open.pop(str(id_), None)])
            return
        request_id = str(message.request_id)
        self._open[request_id] = message
        if isinstance(message, Generate):
            prompt_ids, priority = message.prompt_ids, _GENERATION
            arguments = sampling_arguments(message, on_cpu=self._on_cpu)
        else:
            prompt_ids, priority = message.ids[:-1], _SCORE
            arguments = scoring_arguments(message)
            if "prompt_logprobs" in arguments:
                arguments["flat_logprobs"] = True
        params = self._params(**arguments)
        self._engine.add_request(request_id, self._tokens_input(list(prompt_ids)), params, priority=priority)

    def _step(self) -> list[VllmResult]:
        """Generates one token for every request; returns the results of those that are finished."""
        return [
            _scored(request, output) if isinstance(request, Score) else _generated(request, output.outputs[0])
            for output in self._engine.step()
            if output.finished and (request := self._open.pop(output.request_id, None))
        ]


def _generated(request: Generate, output: Any) -> Generated:
    if output.finish_reason == "stop":
        return Generated(request.request_id, tuple(output.token_ids[:-1]), STOP)
    if output.finish_reason != "length":
        raise RuntimeError(f"vLLM ended a request with {output.finish_reason!r}")
    return Generated(request.request_id, tuple(output.token_ids), LENGTH)


def _scored(request: Score, output: Any) -> Scored:
    inner = [
        output.prompt_logprobs[position][request.ids[position]].logprob
        for position in range(request.num_prompt, len(request.ids) - 1)
    ]
    last = output.outputs[0].logprobs[0][request.ids[-1]].logprob
    return Scored(request.request_id, [*inner, last])


def _receive(connection: Connection, inbox: SimpleQueue[Messages | None]) -> None:
    try:
        while True:
            inbox.put(connection.recv())
    except (EOFError, OSError):
        inbox.put(None)


def _is_user_error(error: Exception) -> bool:
    """Whether settings, memory or the model are to blame, judging by the exceptions that vLLM raises for those."""
    import torch

    return isinstance(error, (ValueError, NotImplementedError, MemoryError, OSError, torch.OutOfMemoryError))


if __name__ == "__main__":
    main()
