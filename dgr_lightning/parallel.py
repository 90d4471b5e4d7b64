"""Several processes as one training: who is which rank, Lightning's strategy for them, and weights that lie in shards.

FSDP2 shards layer by layer: a layer's weights are gathered before it computes and freed behind it, so a rank holds its share of
weights, gradients and optimizer state and one whole layer. Output layer and embeddings, which may be one tensor, belong to the
root: they are gathered once a row and stay until its backward pass is done.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor

from dgr_lightning.config import TrainerConfig
from dgr_lightning.errors import UserError
from dgr_lightning.model_folder import weight_files

if TYPE_CHECKING:
    from lightning.pytorch.plugins.environments import ClusterEnvironment
    from lightning.pytorch.strategies import Strategy
    from torch.distributed.device_mesh import DeviceMesh
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this one is.

    Attributes:
        rank: of all processes, counted from 0.
        size: number of processes.
        local_rank: of those on this machine; the index of its device.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def here(cls) -> Ranks:
        """Reads what torch's elastic agent says in the environment; alone where it started nothing."""
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return cls()
        return cls(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))

    @property
    def is_first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def agree(self, value: Any) -> Any:
        """Returns rank 0's value on every rank; any value that pickle takes. Collective."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def sum(self, values: Tensor) -> Tensor:
        """Adds up a tensor over the ranks, in place. Collective."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """Returns the values of all ranks, in their order, on every rank; any values that pickle takes. Collective."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values


def strategy(trainer: TrainerConfig, ranks: Ranks) -> tuple[Strategy | str, ClusterEnvironment]:
    """Returns what Lightning needs to know of the ranks: its strategy and its environment."""
    from lightning.pytorch.plugins.environments import LightningEnvironment, TorchElasticEnvironment
    from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

    # Named, so that Lightning does not take a Slurm job's variables for its own.
    elastic = "TORCHELASTIC_RUN_ID" in os.environ
    environment: ClusterEnvironment = TorchElasticEnvironment() if elastic else LightningEnvironment()
    # Checkpoints are gathered over gloo while NCCL computes.
    backend = "cpu:gloo,cuda:nccl" if trainer.accelerator == "cuda" else "gloo"
    if trainer.strategy == "fsdp":

        class Sharded(ModelParallelStrategy):
            def model_to_device(self) -> None:
                """`configure_model` put everything in its place, on the CPU what is to stay there."""

        return Sharded(ranks.size, 1, process_group_backend=backend), environment
    if trainer.strategy == "ddp":
        return DDPStrategy(process_group_backend=backend, gradient_as_bucket_view=True, broadcast_buffers=False), environment
    return "auto", environment


def compute_device(trainer: TrainerConfig, ranks: Ranks) -> torch.device:
    """Returns the device that a rank computes on."""
    return torch.device("cuda", ranks.local_rank) if trainer.accelerator == "cuda" else torch.device("cpu")


# --- Weights in shards ----------------------------------------------------------------------------------------------------


def shard(model: PreTrainedModel, folder: Path | None, trainer: TrainerConfig, precision: str, device: torch.device) -> None:
    """Shards a model over all ranks and fills it with a folder's weights, of which every rank reads its own part. Collective.

    Args:
        model: on the meta device: nothing of it exists yet (`models.empty_model`). Adapters in it get no values here.
        folder: of the weights; None for a model that is loaded already, whole, on every rank.
        trainer: how it is sharded.
        precision: type of the computation. Sharded weights that are trained, gradients and their reduction over ranks stay
            fp32; with `bf16` weights are gathered in bf16.
        device: of this rank.
    """
    mixed = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if precision == "bf16" else MixedPrecisionPolicy()
    offload = CPUOffloadPolicy(pin_memory=device.type == "cuda") if trainer.cpu_offload else OffloadPolicy()
    mesh = _mesh(trainer, device)
    for layer in layers(model):
        fully_shard(layer, mesh=mesh, mp_policy=mixed, offload_policy=offload)
    fully_shard(model, mesh=mesh, mp_policy=mixed, offload_policy=offload)
    if folder is None:
        return
    model.to_empty(device="cpu" if trainer.cpu_offload else device)
    _compute_buffers(model, device)
    _read_weights(model, folder)


def layers(model: PreTrainedModel) -> list[nn.Module]:
    """Returns the layers of a model, first to last: the modules that it says itself are not to be split."""
    whole = set(model._no_split_modules or ())
    # A sharded module's class is one of FSDP2's own, made of the model's.
    return [module for module in model.modules() if whole & {kind.__name__ for kind in type(module).__mro__}]


def recompute(model: PreTrainedModel, every: int) -> None:
    """Has every `every`-th layer compute its activations again in the backward pass instead of keeping them; 0: none."""
    if not every:
        return
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for index, layer in enumerate(layers(model)):
        layer.gradient_checkpointing = index % every == 0  # type: ignore[assignment]


def compile_layers(model: PreTrainedModel) -> None:
    """Has every layer compiled when it is first called; all of them share the code. Attention, document by document, is not."""
    for layer in layers(model):
        layer.compile(dynamic=True)


def reshard(model: nn.Module) -> None:
    """Frees what a forward pass without a backward pass left gathered."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Gathers all weights of a sharded model, in the computation's type, for many forward passes. Collective at both ends.

    In between, ranks need not compute in step. A model that is not sharded is left as it is.

    Raises:
        UserError: a GPU has no room for the whole model.
    """
    sharded = [module for module in model.modules() if isinstance(module, FSDPModule)]
    if sharded and torch.cuda.is_initialized():
        free, _ = torch.cuda.mem_get_info()
        needed = 2 * sum(weight.numel() for weight in model.parameters())
        if needed > free:
            raise UserError(
                f"Probes gather the whole model on every device: {needed / 2**30:.0f} GiB, and {free / 2**30:.0f} are free. "
                "Write probes.every=0 to train without them."
            )
    for module in sharded:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in sharded:
            module.set_reshard_after_forward(module is not model, recurse=False)
            module.reshard()


def as_forward(model: nn.Module, function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that uses the weights of `model` as one that may be called while they lie in shards.

    They are gathered before it and freed behind its backward pass, as around the model's own `forward`.
    """
    if not isinstance(model, FSDPModule):
        return function
    from torch.distributed.fsdp import register_fsdp_forward_method

    name = f"_{function.__name__}_of_shards"
    setattr(model, name, function)
    register_fsdp_forward_method(model, name)
    method: Callable[..., Any] = getattr(model, name)
    return method


def whole_tensors(tensors: Iterator[tuple[str, Tensor]], dtype: torch.dtype, ranks: Ranks) -> dict[str, Tensor]:
    """Collects tensors, sharded or not, on rank 0's CPU; on other ranks the result is empty. Collective.

    Args:
        tensors: by name, in the same order on every rank.
        dtype: of floating-point results; shards are cast before they travel.
        ranks: this process.
    """
    whole = {}
    for name, tensor in tensors:
        value = tensor.detach()
        value = value.to(dtype) if value.is_floating_point() else value
        if isinstance(value, DTensor):
            value = value.full_tensor()
        if ranks.is_first:
            whole[name] = value.cpu()
    return whole


def _mesh(trainer: TrainerConfig, device: torch.device) -> DeviceMesh:
    from torch.distributed.device_mesh import init_device_mesh

    size = dist.get_world_size()
    if trainer.shard_size is None or trainer.shard_size == size:
        return init_device_mesh(device.type, (size,), mesh_dim_names=("shard",))
    groups = (size // trainer.shard_size, trainer.shard_size)
    return init_device_mesh(device.type, groups, mesh_dim_names=("replicate", "shard"))


def _compute_buffers(model: PreTrainedModel, device: torch.device) -> None:
    """Gives buffers that no folder stores (rotary frequencies) their values, as transformers does for its own empty models."""
    with torch.no_grad():
        for module in model.modules():
            if not module._non_persistent_buffers_set:
                continue
            for name in module._non_persistent_buffers_set:
                module._buffers[name] = torch.full_like(module.get_buffer(name), float("nan"), device=device)
            model._init_weights(module)
            for name in module._non_persistent_buffers_set:
                if module.get_buffer(name).isnan().any():
                    raise UserError(
                        f"trainer.strategy=fsdp: {type(module).__name__} keeps {name}, which no file of its folder holds "
                        "and which cannot be computed before its shards are. Take trainer=ddp, which loads the model whole."
                    )


def _read_weights(model: PreTrainedModel, folder: Path) -> None:
    import torch.distributed.checkpoint as dcp
    from safetensors import safe_open
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    from dgr_lightning.models import load_model

    files = weight_files(folder, str(folder))
    stored: set[str] = set()
    for path in files:
        with safe_open(path, framework="pt") as file:
            stored |= set(file.keys())
    persistent = model.state_dict().keys()
    # peft puts the matrix that an adapter belongs to one level deeper.
    own = {name.replace(".base_layer.", "."): name for name, _ in model.named_parameters() if ".lora_" not in name}
    wanted = {stored_as: model.get_parameter(name).detach() for stored_as, name in own.items()}
    wanted |= {name: buffer for name, buffer in model.named_buffers() if name in persistent}
    if wanted.keys() <= stored:
        dcp.load(wanted, storage_reader=_weight_reader(files))
        return
    # Some models are stored under other names, or in other pieces, than they compute with; transformers knows which.
    whole = load_model(folder, "master", "cpu").state_dict() if dist.get_rank() == 0 else {}
    whole = {own.get(name, name): weight for name, weight in whole.items()}
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=False)  # adapters are in no folder
    set_model_state_dict(model, whole, options=options)


def _weight_reader(files: list[Path]) -> Any:
    """Returns a reader of exactly these files: others in the folder may hold the same names."""
    from torch.distributed.checkpoint import HuggingFaceStorageReader

    reader = HuggingFaceStorageReader(str(files[0].parent))
    setattr(reader.fs, "ls", lambda path: [str(file) for file in files])  # noqa: B010 (mypy)
    return reader
