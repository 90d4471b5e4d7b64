"""Part 1: versions, and torch's varlen attention against SDPA, document by document."""

from __future__ import annotations

import inspect
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from itertools import accumulate

import torch
from torch import Tensor

from benchmarks.gpu_parts.part import Line, Setup, milliseconds, relative_difference
from dgr_lightning.models.attention import Documents, document_attention, varlen_is_sdpa

_PACKAGES = ("torch", "lightning", "transformers", "triton", "safetensors", "numpy", "peft", "bitsandbytes", "torchao", "vllm")
_TOLERANCE = 0.02  # both round to bf16


@dataclass(frozen=True)
class Sizes:
    """Tokens, documents and heads; the GPU's are those of a 7B model."""

    tokens: int = 8192
    documents: int = 20
    heads: int = 28
    groups: int = 4
    size: int = 128


def prove(setup: Setup) -> Iterator[Line]:
    """Yields the versions, then the comparison."""
    yield _versions(setup)
    sizes = Sizes(256, 5, 4, 2, 16) if setup.dry else Sizes()
    inputs, lengths = _inputs(sizes, setup.device)
    ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=setup.device)
    ways = {"varlen": Documents(lengths, ends), "sdpa": Documents(lengths)}
    upper = torch.randn(1, sizes.tokens, sizes.heads, sizes.size, device=setup.device, dtype=torch.bfloat16)

    def attend(way: str) -> Tensor:
        return document_attention(torch.nn.Identity(), *inputs, None, documents=ways[way])[0]

    def learn(way: str) -> list[Tensor]:
        attended = attend(way)
        return [attended.detach(), *torch.autograd.grad(attended, inputs, upper)]

    found, expected = learn("varlen"), learn("sdpa")
    differences = {
        name: relative_difference(one, other)
        for name, one, other in zip(("output", "query", "key", "value"), found, expected, strict=True)
    }
    yield {
        "case": f"{sizes.tokens} tokens, {sizes.documents} documents",
        "varlen_is_used": varlen_is_sdpa(setup.device, torch.bfloat16, sizes.size, sizes.heads // sizes.groups),
        "relative_difference": differences,
        "agrees": max(differences.values()) < _TOLERANCE,
        "forward_ms": {way: milliseconds(lambda way=way: attend(way)) for way in ways},
        "forward_and_backward_ms": {way: milliseconds(lambda way=way: learn(way)) for way in ways},
    }


def _versions(setup: Setup) -> Line:
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    try:
        from torch.nn.attention.varlen import varlen_attn

        signature = str(inspect.signature(varlen_attn))
    except ImportError as error:
        signature = str(error)
    return {
        "case": "versions",
        "versions": versions,
        "device": platform.machine() if setup.dry else torch.cuda.get_device_name(0),
        "memory_bytes": setup.memory_bytes,
        "cuda": torch.version.cuda,
        "nccl": None if setup.dry else ".".join(map(str, torch.cuda.nccl.version())),
        "varlen_attn": signature,
    }


def _inputs(sizes: Sizes, device: torch.device) -> tuple[list[Tensor], list[int]]:
    """Returns queries, keys and values, [1, heads, tokens, size], and the lengths of documents, all different."""
    noise = torch.Generator(device).manual_seed(0)
    inputs = [
        torch.randn(1, heads, sizes.tokens, sizes.size, generator=noise, device=device, dtype=torch.bfloat16).requires_grad_()
        for heads in (sizes.heads, sizes.groups, sizes.groups)
    ]
    shortest = 2 * sizes.tokens // (3 * sizes.documents)
    lengths = [shortest + number for number in range(sizes.documents - 1)]
    return inputs, [*lengths, sizes.tokens - sum(lengths)]
