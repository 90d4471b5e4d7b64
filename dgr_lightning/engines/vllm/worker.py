"""The process in which one vLLM engine runs, on one GPU, one tensor-parallel group, or the CPU.

`engines.vllm_process` starts it by `python -m dgr_lightning.engines.vllm.worker <socket> <parent>`. The loop is vLLM's own,
`add_request` and `step`, all of it in this one process: vLLM's usual second one, which schedules, outlives a parent that is
killed. A thread takes messages off the socket while a step runs, so that the parent never waits to send, and only what is
finished is sent back: no traffic for a token.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from dgr_lightning.distributed.processes import die_with_parent
from dgr_lightning.engines.engine import LENGTH, STOP
from dgr_lightning.engines.vllm.messages import Done, Drop, Generate, Generated, Ready, Refused, Score, Scored, Setup, Work

Message = list[Work | Drop]

# vLLM serves the lower number first: scores are one step each, and what asks for them stands still meanwhile.
_GENERATION, _SCORE = 1, 0


def main() -> None:
    """Runs an engine until the parent closes the socket."""
    die_with_parent(int(sys.argv[2]))
    connection = Connection(int(sys.argv[1]))
    # Where a process that vLLM starts held the socket too, its end would not be seen.
    os.set_inheritable(connection.fileno(), False)
    try:
        worker = Worker(connection.recv())
    except Exception as error:
        traceback.print_exc()
        connection.send(Refused(_one_line(error), _is_mendable(error)))
        sys.exit(1)
    try:
        connection.send(Ready(worker.max_length))
        worker.serve(connection)
    finally:
        worker.close()
    # Taking down an interpreter that holds vLLM takes seconds.
    os._exit(0)


class Worker:
    """A vLLM engine and the requests in it.

    Attributes:
        max_length: tokens that prompt and output may have together.
    """

    def __init__(self, setup: Setup) -> None:
        """Loads the model; everything that vLLM raises goes through."""
        from vllm import SamplingParams
        from vllm.engine.arg_utils import EngineArgs
        from vllm.inputs.engine import tokens_input
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.llm_engine import LLMEngine

        arguments: dict[str, Any] = dict(setup.arguments)
        self._on_cpu = setup.device == "cpu"
        if self._on_cpu:
            from dgr_lightning.engines.vllm.noise import RequestNoise

            arguments["logits_processors"] = [RequestNoise]
        self._engine = LLMEngine.from_engine_args(EngineArgs(**arguments))
        self.max_length: int = self._engine.model_config.max_model_len
        self._work: dict[str, Work] = {}
        self._tokens_input, self._params, self._final_only = tokens_input, SamplingParams, RequestOutputKind.FINAL_ONLY

    def serve(self, connection: Connection) -> None:
        """Does what comes over the socket, until it is closed."""
        inbox: SimpleQueue[Message | None] = SimpleQueue()
        threading.Thread(target=_receive, args=(connection, inbox), daemon=True).start()
        while True:
            while not self._work or not inbox.empty():
                message = inbox.get()
                if message is None:
                    return
                for item in message:
                    self._take(item)
            done = self._step()
            if done:
                try:
                    connection.send(done)
                except OSError:  # the parent has hung up
                    return

    def close(self) -> None:
        """Ends what vLLM has started."""
        self._engine.engine_core.shutdown()

    def _take(self, item: Work | Drop) -> None:
        if isinstance(item, Drop):
            numbers = [str(number) for number in item.numbers if self._work.pop(str(number), None)]
            self._engine.abort_request(numbers)
            return
        self._work[str(item.number)] = item
        prompt_ids: Sequence[int] = item.prompt_ids if isinstance(item, Generate) else item.ids[:-1]
        self._engine.add_request(
            str(item.number),
            self._tokens_input(list(prompt_ids)),
            self._sampling(item) if isinstance(item, Generate) else self._scoring(item),
            priority=_GENERATION if isinstance(item, Generate) else _SCORE,
        )

    def _sampling(self, item: Generate) -> Any:
        settings: dict[str, Any] = {"temperature": 0.0}
        if item.temperature > 0 and self._on_cpu:
            from dgr_lightning.engines.vllm.noise import noise_arguments

            settings["extra_args"] = noise_arguments(item.stream, item.temperature, item.top_p)
        elif item.temperature > 0:
            # vLLM takes -1 for no seed at all.
            settings = {"temperature": item.temperature, "top_p": item.top_p, "seed": item.stream & (2**63 - 1)}
        return self._params(
            max_tokens=item.max_tokens,
            stop_token_ids=list(item.stop_ids),
            ignore_eos=True,
            detokenize=False,
            output_kind=self._final_only,
            **settings,
        )

    def _scoring(self, item: Score) -> Any:
        """The last token is not read, but asked for: a text as long as the model's positions can so be scored."""
        inner = {"prompt_logprobs": 0, "flat_logprobs": True} if len(item.ids) - 1 > item.num_prompt else {}
        return self._params(
            temperature=0.0,
            max_tokens=1,
            logprob_token_ids=[item.ids[-1]],
            ignore_eos=True,
            detokenize=False,
            output_kind=self._final_only,
            **inner,
        )

    def _step(self) -> list[Done]:
        """Generates one token everywhere; returns what is finished."""
        return [
            _scored(item, output) if isinstance(item, Score) else _generated(item, output.outputs[0])
            for output in self._engine.step()
            if output.finished and (item := self._work.pop(output.request_id, None))
        ]


def _generated(item: Generate, output: Any) -> Generated:
    if output.finish_reason == "stop":
        return Generated(item.number, tuple(output.token_ids[:-1]), STOP)
    if output.finish_reason != "length":
        raise RuntimeError(f"vLLM ended a request with {output.finish_reason!r}")
    return Generated(item.number, tuple(output.token_ids), LENGTH)


def _scored(item: Score, output: Any) -> Scored:
    inner = [
        output.prompt_logprobs[position][item.ids[position]].logprob for position in range(item.num_prompt, len(item.ids) - 1)
    ]
    last = output.outputs[0].logprobs[0][item.ids[-1]].logprob
    return Scored(item.number, [*inner, last])


def _receive(connection: Connection, inbox: SimpleQueue[Message | None]) -> None:
    try:
        while True:
            inbox.put(connection.recv())
    except (EOFError, OSError):
        inbox.put(None)


def _one_line(error: Exception) -> str:
    """Returns the beginning of vLLM's message, which may be pages long."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _is_mendable(error: Exception) -> bool:
    """Whether settings, memory or the model are to blame: what vLLM raises for those."""
    import torch

    return isinstance(error, (ValueError, NotImplementedError, MemoryError, OSError, torch.OutOfMemoryError))


if __name__ == "__main__":
    main()
