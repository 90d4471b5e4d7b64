"""The memory of a training on one of its devices, before it starts: bytes by kind at the moment when most are needed.

`memory_plan` goes through one row as the training does: forward layer by layer, the loss, backward layer by layer, the
optimizer's step. What layers keep and need comes from the model's own code (`memory_trace.py`), numbers of weights from its
outline (`memory_sizes.py`), bytes of optimizer states from the optimizer. The constants of this file are:

- the chunks of `linear_cross_entropy`, which it says itself;
- FSDP2 holds the gathered weights of up to three layers at once (`GATHERED_LAYERS`): the one that computes, the next one, and
  the buffer from which the next one is copied; its reduction casts the gradients of one layer to fp32 beside those in bf16;
- of a GPU's memory `RESERVE_BYTES` + `RESERVE_SHARE` are left: the CUDA context, workspaces of cuBLAS and NCCL, which torch's
  allocator does not count, and what it cannot use between tensors. An assumption, not a measurement.

- Compiled layers keep `COMPILED_SHARE` of what eager ones do, and no bf16 copies of their weights, for the backward pass. What
  they need beside it, and compiled layers with adapters, are counted as eager, an upper bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from dgr_lightning.config import Config, TrainerConfig
from dgr_lightning.training.linear_cross_entropy import LossBytes, cross_entropy_bytes
from dgr_lightning.training.memory_sizes import ModelOutline, ModelSizes, Weights
from dgr_lightning.training.memory_trace import Footprint
from dgr_lightning.training.optimizer import OPTIMIZERS

WEIGHTS, COPIES, GRADIENTS, STATES = "weights", "bf16 copies, gathered layers", "gradients", "optimizer states"
ACTIVATIONS, LOSS, WORK = "activations", "output layer and loss", "within a layer"
KINDS = (WEIGHTS, COPIES, GRADIENTS, STATES, ACTIVATIONS, LOSS, WORK)

GATHERED_LAYERS = 3
RESERVE_BYTES, RESERVE_SHARE = 2**30, 0.03
# Measured at 7B widths on the CPU: 0.52 under FSDP, 0.46 without weights under autocast (`tests/distributed/
# test_compiled_layers.py`).
COMPILED_SHARE = 0.55
# NormalFloat in blocks of 64 whose scales take 8 bits, in blocks of 256 with a scale of fp32 (arXiv 2305.14314, section 3).
_PACKED_BYTES, _SCALE_BYTES = 1 / 2, (1 + 4 / 256) / 64


@dataclass(frozen=True)
class RowSize:
    """The packed row that needs most memory.

    Attributes:
        documents: tokens of each of its documents, padding included as one more.
        num_targets: its target tokens, padded.
        several: whether a step may have more rows on a device, so that gradients of one are there while the next computes.
        cause: which row it is, for people.
    """

    documents: tuple[int, ...]
    num_targets: int
    several: bool = True
    cause: str = ""

    @property
    def num_tokens(self) -> int:
        """Its tokens, padding included."""
        return sum(self.documents)


@dataclass(frozen=True)
class MemoryPlan:
    """What a training needs on each device.

    Attributes:
        bytes: kind → bytes, at the moment when most are needed.
        moment: that moment.
        host: bytes of the machine's memory for each device, with CPU offload or a paged optimizer.
        recompute_every: with which it was made.
        states: bytes of the optimizer's states on the device.
    """

    bytes: Mapping[str, int]
    moment: str
    host: int
    recompute_every: int
    states: int

    @property
    def total(self) -> int:
        """Of all kinds."""
        return sum(self.bytes.values())


def usable(memory: int, accelerator: str) -> int:
    """Returns how much of a device's bytes a training may plan with; on the CPU, all of what was stated."""
    return memory if accelerator == "cpu" else int(memory * (1 - RESERVE_SHARE)) - RESERVE_BYTES


def computation(trainer: TrainerConfig) -> str:
    """Returns how layers compute: under `autocast`, with all weights gathered in `bf16`, or in `fp32`."""
    if trainer.precision != "bf16":
        return "fp32"
    return "bf16" if trainer.strategy == "fsdp" else "autocast"


def memory_plan(
    outline: ModelOutline, cfg: Config, row: RowSize, recompute_every: int, *, reshard_after_forward: bool = True
) -> MemoryPlan:
    """Returns the memory that a training needs on each device.

    Args:
        outline: of the model.
        cfg: `tuning`, `sft.optimizer` and `trainer` are read; of `trainer` no `auto` and no null but in `recompute_every`
            and `shard_size`.
        row: its largest row.
        recompute_every: activation checkpointing: every n-th layer, 0: none.
        reshard_after_forward: fsdp: whether a layer's gathered weights are freed until its backward pass; where not, all layers
            are gathered at once.
    """
    trainer, compute = cfg.trainer, computation(cfg.trainer)
    sizes = outline.sizes(cfg.tuning)
    on_gpu = trainer.accelerator == "cuda"
    footprint = outline.footprint(cfg.tuning, compute, row.documents, on_gpu=on_gpu, ways=trainer.tensor_parallel)
    if trainer.compile is True and cfg.tuning.method == "full":
        footprint = replace(footprint, saved=int(COMPILED_SHARE * footprint.saved), copies=0)
    reshards = reshard_after_forward and trainer.reshard_after_forward is not False
    passes = _Passes(sizes, footprint, row, _Sharding.of(trainer, compute), recompute_every, reshards)
    states, states_on_host, work = _optimizer(cfg, sizes, passes.sharding)
    passes.begin(STATES, states)
    passes.run(compute, on_gpu=on_gpu, ddp=trainer.strategy == "ddp", optimizer_work=work)
    host = states_on_host + (passes.offloaded() if trainer.cpu_offload else 0)
    return MemoryPlan(passes.highest, passes.moment, host, recompute_every, states)


@dataclass(frozen=True)
class _Sharding:
    """How weights lie on devices.

    Attributes:
        is_on: whether they are sharded.
        shards: devices that hold the weights once.
        ways: of them, those that share a layer's matrices.
        offloads: whether shards lie in host memory.
        gathered: bytes of a gathered number.
        frozen: bytes of a frozen number.
    """

    is_on: bool
    shards: int
    ways: int
    offloads: bool
    gathered: int
    frozen: int

    @classmethod
    def of(cls, trainer: TrainerConfig, compute: str) -> _Sharding:
        assert trainer.devices is not None, "trainer.devices is resolved before memory is planned"
        is_on, size = trainer.strategy == "fsdp", 4 if compute == "fp32" else 2
        shards = (trainer.shard_size or trainer.devices * trainer.nodes) if is_on else 1
        return cls(is_on, shards, trainer.tensor_parallel, trainer.cpu_offload, size, size)

    def stored(self, weights: Weights) -> int:
        """Returns the bytes of a part's weights on one device."""
        plain = 4 * weights.trained + self.frozen * weights.frozen + _PACKED_BYTES * weights.packed
        # Scales are not sharded: they belong to the packed weights' Python objects.
        return int(plain / self.shards + _SCALE_BYTES * weights.packed)

    def whole(self, weights: Weights) -> int:
        """Returns the bytes of a part's weights gathered from all shards, for one of the `ways`."""
        return int((self.gathered * (weights.trained + weights.frozen) + _PACKED_BYTES * weights.packed) / self.ways)


def _optimizer(cfg: Config, sizes: ModelSizes, sharding: _Sharding) -> tuple[int, int, int]:
    """Returns bytes of the optimizer's states on the device and on the host, and what its step needs."""
    spec = OPTIMIZERS.get(cfg.sft.optimizer)
    inside, outside = sum(layer.trained for layer in sizes.layers), sizes.root.trained
    outer = spec.state_bytes if spec.outer_state_bytes is None else spec.outer_state_bytes
    states = int((spec.state_bytes * inside + outer * outside) / sharding.shards)
    on_host = spec.is_paged or sharding.offloads
    work = int(spec.step_bytes * max((layer.largest for layer in sizes.layers), default=0))
    return (0, states, work) if on_host else (states, 0, work)


@dataclass
class _Passes:
    """A row's way through the training: what is there now, and what was there when it was most.

    Attributes:
        now: kind → bytes.
        highest: the same at the peak.
        moment: of the peak.
    """

    sizes: ModelSizes
    footprint: Footprint
    row: RowSize
    sharding: _Sharding
    every: int
    reshards: bool
    now: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    highest: dict[str, int] = field(default_factory=dict)
    moment: str = ""

    def begin(self, kind: str, size: int) -> None:
        self.now[kind] += size

    def check(self, moment: str, **more: int) -> None:
        """Compares what is there now, and `more` of the kinds in capitals, with the peak."""
        there = dict(self.now)
        for name, size in more.items():
            there[_BY_NAME[name]] += size
        if not self.highest or sum(there.values()) > sum(self.highest.values()):
            self.highest, self.moment = there, moment

    def offloaded(self) -> int:
        """Returns the bytes of shards of weights and gradients in host memory."""
        whole = self.sizes.all
        return self.sharding.stored(whole) + 4 * whole.trained // self.sharding.shards

    def run(self, compute: str, *, on_gpu: bool, ddp: bool, optimizer_work: int) -> None:
        """Goes through forward, loss, backward and step."""
        sharding, whole = self.sharding, self.sizes.all
        kept = not sharding.offloads
        self.now[WEIGHTS] = sharding.stored(whole) * kept
        gradients = 4 * whole.trained // sharding.shards * kept
        # DDP's buckets live as long as the training; else gradients are there from the first row of a step on.
        there_before = ddp or self.row.several
        self.now[GRADIENTS] = gradients if there_before else 0
        self._forward()
        self._loss(compute, on_gpu=on_gpu)
        self._backward(there_before=there_before)
        self.now[GRADIENTS] = gradients
        for kind in (COPIES, ACTIVATIONS, LOSS):
            self.now[kind] = 0
        self.check("the optimizer's step", work=optimizer_work)

    def _forward(self) -> None:
        part, sharding = self.footprint, self.sharding
        self.now[ACTIVATIONS] += part.around
        if sharding.is_on:
            self.now[COPIES] += sharding.whole(self.sizes.root)
        for index, layer in enumerate(self.sizes.layers):
            self.check("the forward pass", copies=self._gathered(index), work=part.forward)
            self.now[ACTIVATIONS] += self._kept(index)
            self.now[COPIES] += part.copies  # autocast remembers those of recomputed layers as well
            if sharding.is_on and not self.reshards:
                self.now[COPIES] += sharding.whole(layer)
        self.check("the forward pass")

    def _loss(self, compute: str, *, on_gpu: bool) -> None:
        sizes, row = self.sizes, self.row
        product = 4 if compute == "fp32" else 2
        held = 4 if sizes.trains_root and not self.sharding.is_on else self.sharding.gathered
        needs = cross_entropy_bytes(
            row.num_targets,
            sizes.width,
            sizes.vocabulary,
            hidden_size=self.footprint.hidden_size,
            weight_size=held,
            product_size=product,
            trains_weight=sizes.trains_root,
            on_gpu=on_gpu,
        )
        if not sizes.fuses_head:  # all logits at once: in the computation's type, in fp32, and log-softmax with its gradient
            logits = row.num_targets * sizes.vocabulary
            needs = LossBytes((product + 8) * logits, 8 * logits, 0)
        self.check("the loss", loss=needs.peak)
        self.now[LOSS] += needs.kept
        recomputed = sum(self._is_recomputed(index) for index in range(len(sizes.layers)))
        self.now[COPIES] -= self.footprint.copies * recomputed
        all_hidden = row.num_tokens * sizes.width * self.footprint.hidden_size
        self.check("the end of the forward pass", loss=all_hidden)
        # The gradients of the targets' hidden states become those of the whole row's.
        self.now[LOSS] = needs.kept_weight
        self.now[ACTIVATIONS] += all_hidden

    def _backward(self, *, there_before: bool) -> None:
        part, sizes, sharding = self.footprint, self.sizes, self.sharding
        kept = not sharding.offloads
        for index in reversed(range(sizes.first_trained, len(sizes.layers))):
            layer = sizes.layers[index]
            work = part.backward
            if self._is_recomputed(index):
                work = max(part.forward, part.saved + part.copies + part.backward)
            reduced = (4 + 4 // sharding.shards) * layer.trained // sharding.ways if sharding.is_on else 0
            self.check("the backward pass", copies=self._gathered(index), work=work, gradients=reduced)
            self.now[ACTIVATIONS] -= self._kept(index)
            self.now[COPIES] -= 0 if self._is_recomputed(index) else part.copies
            if sharding.is_on and not self.reshards:
                self.now[COPIES] -= sharding.whole(layer)
            if not there_before:
                self.now[GRADIENTS] += 4 * layer.trained // sharding.shards * kept
        if sizes.trains_root:
            self._embeddings(there_before=there_before)

    def _embeddings(self, *, there_before: bool) -> None:
        """The gradient of the embeddings is as large as they are, whatever tokens the row holds."""
        sizes, sharding = self.sizes, self.sharding
        if sharding.is_on:
            # Both gradients of the root, gathered in the computation's type, and cast to fp32 to be reduced.
            whole = sizes.root.trained
            self.now[LOSS] = 0
            self.check("the end of the backward pass", gradients=(sharding.gathered + 4) * whole + 4 * whole // sharding.shards)
            return
        self.check("the end of the backward pass", gradients=4 * sizes.embeddings)

    def _kept(self, index: int) -> int:
        if index < self.sizes.first_trained:
            return 0
        return self.footprint.layer_input if self._is_recomputed(index) else self.footprint.saved

    def _is_recomputed(self, index: int) -> bool:
        return self.every > 0 and index % self.every == 0

    def _gathered(self, index: int) -> int:
        if not self.sharding.is_on or not self.reshards:
            return 0
        return GATHERED_LAYERS * self.sharding.whole(self.sizes.layers[index])


_BY_NAME = {"copies": COPIES, "gradients": GRADIENTS, "loss": LOSS, "work": WORK}
