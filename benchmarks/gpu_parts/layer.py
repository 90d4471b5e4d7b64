"""Part 3: one layer of a 7B model, eager and compiled: its time, and the bytes that it keeps for the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu_parts.models import DRY, encoded_rows
from benchmarks.gpu_parts.part import Line, Setup, each, milliseconds
from benchmarks.sft_throughput import SHAPES, random_model
from dgr_lightning.distributed.fsdp import compile_layers
from dgr_lightning.models.attention import Documents, use_document_attention
from dgr_lightning.training.packing import RowTensors, collate


def prove(setup: Setup) -> Iterator[Line]:
    """Yields a line eager and compiled, with weights in bf16 as FSDP gathers them, and one under autocast."""
    ways = {"eager": (False, False), "compiled": (True, False), "eager, autocast": (False, True)}
    yield from each(
        {name: partial(_measure, setup, compiled=compiled, autocast=autocast) for name, (compiled, autocast) in ways.items()}
    )


def _measure(setup: Setup, *, compiled: bool, autocast: bool) -> Line:
    # Few words, so that embeddings take no part.
    shape = replace(DRY if setup.dry else SHAPES["7B"], layers=1, vocabulary=1024)
    model = random_model(shape, str(setup.device)).to(torch.float32 if autocast else torch.bfloat16).train()
    use_document_attention(model)
    if compiled:
        compile_layers(model)
    rows = [_row(documents, setup) for documents in ((2, 4) if setup.dry else (10, 20))]

    def forward(row: RowTensors) -> Tensor:
        with torch.autocast(setup.device.type, torch.bfloat16, enabled=autocast):
            hidden: Tensor = model.base_model(
                input_ids=row["input_ids"],
                position_ids=row["position_ids"],
                documents=Documents(row["document_lengths"], row["document_ends"]),
                use_cache=False,
            ).last_hidden_state
        return hidden

    def learn() -> None:
        forward(rows[1]).float().square().mean().backward()

    elapsed = milliseconds(learn, 10)
    model.zero_grad(set_to_none=True)
    tokens = [row["input_ids"].shape[1] for row in rows]
    # The difference of two rows, since autocast keeps copies of the weights in bf16 as well, whatever the row.
    saved = [_saved_bytes(partial(forward, row)) for row in rows]
    allocated = None if setup.dry else [_allocated_bytes(partial(forward, row)) for row in rows]
    return {
        "tokens": tokens[1],
        "forward_and_backward_ms": elapsed,
        "saved_bytes_per_token": (saved[1] - saved[0]) / (tokens[1] - tokens[0]),
        "allocated_bytes_per_token": allocated and (allocated[1] - allocated[0]) / (tokens[1] - tokens[0]),
    }


def _row(documents: int, setup: Setup) -> RowTensors:
    row = collate(encoded_rows(1024, documents))
    return RowTensors(**{name: value.to(setup.device) if isinstance(value, Tensor) else value for name, value in row.items()})


def _saved_bytes(forward: partial[Tensor]) -> int:
    """Returns the bytes of all tensors that autograd keeps, each block of memory once."""
    blocks: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        blocks[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = forward()
    del hidden
    return sum(blocks.values())


def _allocated_bytes(forward: partial[Tensor]) -> int:
    before = torch.cuda.memory_allocated()
    hidden = forward()
    held = torch.cuda.memory_allocated() - before
    del hidden
    return held
