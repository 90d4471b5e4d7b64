"""How long a model generates on GPUs, estimated from bytes and products: pure functions, for a plan before anything runs.

A decoding step reads every weight once, and the keys and values of every token so far, whatever it computes with them; so its
time follows from the device's bandwidth until a batch is so large that the products take longer (Pope et al. 2022, arXiv
2211.05102). What of bandwidth and peak an engine reaches is assumed (`READ_SHARE`, `PRODUCT_SHARE`), not measured.
"""

from __future__ import annotations

from dataclasses import dataclass

READ_SHARE, PRODUCT_SHARE = 0.6, 0.4
"""Of a device's bandwidth in decoding, and of its peak in reading prompts."""

STEP_SECONDS = 0.005
"""The shortest decoding step of an engine that replays CUDA graphs, as vLLM and the probes do."""

RESERVED_BYTES = 3 * 2**30
"""Of each device, for activations and graphs."""


@dataclass(frozen=True)
class DecodedModel:
    """What a decoding step reads of a model.

    Attributes:
        num_weights: of them.
        weight_bytes: of all of them.
        token_bytes: of a token's keys and values in all layers.
    """

    num_weights: int
    weight_bytes: float
    token_bytes: float


@dataclass(frozen=True)
class EngineMachine:
    """Engines side by side, on devices of one kind.

    Attributes:
        num_engines: engines.
        devices_each: devices that the weights of one are split over.
        flops: peak of a device, FLOP/s.
        bandwidth: of a device's memory, bytes/s.
        memory_bytes: that an engine may take of each device.
        num_sequences: most sequences that an engine decodes at once.
    """

    num_engines: int
    devices_each: int
    flops: float
    bandwidth: float
    memory_bytes: float
    num_sequences: int


@dataclass(frozen=True)
class Generation:
    """What is to be generated.

    Attributes:
        num_sequences: outputs.
        prompt_tokens: of all prompts together.
        output_tokens: of all outputs together.
        longest: tokens of the longest output.
    """

    num_sequences: int = 0
    prompt_tokens: float = 0
    output_tokens: float = 0
    longest: float = 0

    def __add__(self, other: Generation) -> Generation:
        """Returns both, in one stream."""
        return Generation(
            self.num_sequences + other.num_sequences,
            self.prompt_tokens + other.prompt_tokens,
            self.output_tokens + other.output_tokens,
            max(self.longest, other.longest),
        )


def step_seconds(model: DecodedModel, machine: EngineMachine, num_sequences: float, context: float) -> float:
    """Returns about how long an engine takes for the next token of every sequence.

    Args:
        model: read once.
        machine: of the engine.
        num_sequences: decoded together.
        context: tokens of each so far, on average.
    """
    read = model.weight_bytes + num_sequences * context * model.token_bytes
    products = 2 * model.num_weights * num_sequences
    reading = read / (machine.devices_each * machine.bandwidth * READ_SHARE)
    computing = products / (machine.devices_each * machine.flops * PRODUCT_SHARE)
    return max(STEP_SECONDS, reading, computing)


def prefill_seconds(model: DecodedModel, machine: EngineMachine, num_tokens: float) -> float:
    """Returns about how long all engines together take to read tokens: prompts, or texts whose likelihood is wanted."""
    return 2 * model.num_weights * num_tokens / (machine.num_engines * machine.devices_each * machine.flops * PRODUCT_SHARE)


def sequences_at_once(model: DecodedModel, machine: EngineMachine, tokens: float) -> int:
    """Returns how many sequences of so many tokens an engine decodes together: one at least, whatever its memory."""
    room = machine.devices_each * (machine.memory_bytes - RESERVED_BYTES) - model.weight_bytes
    return max(1, min(machine.num_sequences, int(room // max(1.0, tokens * model.token_bytes))))


def generation_seconds(model: DecodedModel, machine: EngineMachine, wanted: Generation) -> float:
    """Returns about how long all engines take for a stream of requests, once they have started.

    Engines are full until nothing waits; then the longest output goes on alone.
    """
    if not wanted.num_sequences:
        return 0.0
    prompt, output = wanted.prompt_tokens / wanted.num_sequences, wanted.output_tokens / wanted.num_sequences
    mine = wanted.num_sequences / machine.num_engines
    together = max(1.0, min(mine, sequences_at_once(model, machine, prompt + output)))
    full = wanted.output_tokens / machine.num_engines / together
    seconds = full * step_seconds(model, machine, together, prompt + output / 2)
    alone = max(0.0, wanted.longest - full) * step_seconds(model, machine, 1, prompt + wanted.longest / 2)
    return seconds + alone + prefill_seconds(model, machine, wanted.prompt_tokens)
