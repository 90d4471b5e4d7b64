"""Models whose weights are sharded over ranks (FSDP2).

Sharding is layer by layer: the weights of a layer are gathered before it computes and freed afterwards, so a rank holds its
shards of weights, gradients and optimizer states, and one full layer. Output layer and embeddings, which may be one tensor,
belong to the root: they are gathered once a row and kept until its backward pass is done. So are all layers with
`trainer.reshard_after_forward=false`, which gathers them once a row instead of twice.

A single rank "gathers" by a cast: its fp32 weights become bf16 a layer at a time, and the residual stream is bf16.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor

from dgr_lightning.config import TrainerConfig
from dgr_lightning.distributed import tensor_parallel
from dgr_lightning.distributed.ranks import Ranks
from dgr_lightning.errors import UserError
from dgr_lightning.models.folder import weight_files
from dgr_lightning.models.weights import layers, load_model

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from transformers import PreTrainedModel


# Attribute of a sharded layer: whether it frees its gathered weights after its forward pass. The root never does.
_RESHARDED = "resharded_after_forward"


def shard(model: PreTrainedModel, folder: Path | None, trainer: TrainerConfig, precision: str, device: torch.device) -> None:
    """Shards a model over all ranks and loads a folder's weights, of which every rank reads its own shard. Collective.

    Args:
        model: on the meta device (`weights.empty_model`), or loaded in full. Adapters get no values here.
        folder: of the weights; None for a model that is loaded in full on every rank.
        trainer: says how it is sharded.
        precision: type of the computation, in which weights are gathered. Trained shards, gradients and their reduction over
            ranks stay fp32.
        device: of this rank.
    """
    mixed = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if precision == "bf16" else MixedPrecisionPolicy()
    offload = CPUOffloadPolicy(pin_memory=device.type == "cuda") if trainer.cpu_offload else OffloadPolicy()
    mesh, root_mesh, tensor_mesh = _meshes(trainer, device)
    if tensor_mesh is not None:
        tensor_parallel.split(model, tensor_mesh)
    resharded = trainer.reshard_after_forward is not False
    for layer in layers(model):
        fully_shard(layer, mesh=mesh, mp_policy=mixed, offload_policy=offload, reshard_after_forward=resharded)
        setattr(layer, _RESHARDED, resharded)
    fully_shard(model, mesh=root_mesh, mp_policy=mixed, offload_policy=offload)
    if folder is None:
        return
    model.to_empty(device="cpu" if trainer.cpu_offload else device)
    _compute_buffers(model, device)
    _read_weights(model, folder)


def recompute(model: PreTrainedModel, every: int) -> None:
    """Turns on activation checkpointing in every `every`-th layer; 0: in none."""
    if not every:
        return
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for index, layer in enumerate(layers(model)):
        layer.gradient_checkpointing = index % every == 0  # type: ignore[assignment]


def compile_layers(model: PreTrainedModel) -> None:
    """Compiles every layer when it is first called, once for rows of any length; all layers share the code.

    Attention, document by document, stays eager: a layer is four pieces around it. What cannot be compiled runs as it is, with
    torch's warning.
    """
    from torch._dynamo import config as dynamo
    from torch._functorch import config as functorch
    from torch.fx.experimental import _config as shapes

    # What costs no matrix product is computed again in the backward pass instead of being kept: the MLP's product, norms, and
    # under autocast the bf16 copies of fp32 weights. A layer of 7B widths then keeps 121 kB a token instead of 166 (bf16), or
    # of 603 for a row of 1,088 (autocast).
    functorch.ban_recompute_materialized_backward = False
    # Otherwise a first row as long as anything is wide would be taken for an equal size, and the next row compiled anew.
    shapes.use_duck_shape = False
    dynamo.suppress_errors = True
    for layer in layers(model):
        layer.compile(dynamic=True)


@contextmanager
def uncompiled(model: PreTrainedModel) -> Iterator[None]:
    """Runs the layers of a model as they are, for passes that are not worth compiling for."""
    # torch.compiler takes seconds to import; a module that is not compiled need not wait for it.
    if all(module._compiled_call_impl is None for module in model.modules()):
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def clip_gradients(model: nn.Module, max_norm: float) -> Tensor:
    """Scales all gradients to a norm of at most `max_norm`, and returns their norm before. Collective.

    As `torch.nn.utils.clip_grad_norm_`, which cannot handle gradients on different device meshes.
    """
    by_mesh: defaultdict[DeviceMesh | None, list[nn.Parameter]] = defaultdict(list)
    for weight in model.parameters():
        if weight.grad is not None:
            by_mesh[weight.device_mesh if isinstance(weight, DTensor) else None].append(weight)
    norms = [
        torch.nn.utils.get_total_norm([weight.grad for weight in some if weight.grad is not None]) for some in by_mesh.values()
    ]
    norm = torch.linalg.vector_norm(torch.stack([full_tensor(norm) for norm in norms]))
    for some in by_mesh.values():
        torch.nn.utils.clip_grads_with_norm_(some, max_norm, norm)
    return norm


def reshard(model: nn.Module) -> None:
    """Frees the weights that a forward pass without a backward pass left gathered."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def bytes_to_gather(model: nn.Module, precision: str) -> int:
    """Returns the bytes that `unsharded` takes on every device beside the shards; 0 for a model that is not sharded."""
    if not any(isinstance(module, FSDPModule) for module in model.modules()):
        return 0
    return (2 if precision == "bf16" else 4) * sum(weight.numel() for weight in model.parameters())


@contextmanager
def unsharded(model: PreTrainedModel, precision: str) -> Iterator[PreTrainedModel]:
    """Gathers all weights of a sharded model, for many forward passes. Entering and leaving the context are collective.

    Inside the context, ranks compute independently. They call the model that it yields: the model itself, or a plain copy of
    one whose layers are split.

    Args:
        model: in training, sharded or not.
        precision: type of the computation, in which weights are gathered: `bf16` or `fp32`.

    """
    sharded = [module for module in model.modules() if isinstance(module, FSDPModule)]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    if sharded and torch.cuda.is_initialized():
        torch.cuda.empty_cache()  # NCCL's buffers and the full weights find room in one piece
    if tensor_parallel.is_split(model):
        copy = _plain_copy(model, dtype)
        try:
            yield copy
        finally:
            nn.Module.to(copy, "meta")  # frees the memory even if references to it remain
        return
    for module in sharded:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        with _without_hooks(sharded):
            yield model
    finally:
        for module in sharded:
            module.set_reshard_after_forward(getattr(module, _RESHARDED, False), recurse=False)
            module.reshard()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()  # for NCCL's buffers, which are not torch's


@contextmanager
def _without_hooks(sharded: Sequence[nn.Module]) -> Iterator[None]:
    """Has modules whose weights are gathered compute as if they had never been sharded.

    FSDP's own hooks around every layer have nothing to gather then, and the streams that they wait for cannot be recorded in a
    CUDA graph.
    """
    hooks = [(module, module._forward_pre_hooks, module._forward_hooks) for module in sharded]
    for module in sharded:
        module._forward_pre_hooks, module._forward_hooks = OrderedDict(), OrderedDict()
    try:
        yield
    finally:
        for module, before, after in hooks:
            module._forward_pre_hooks, module._forward_hooks = before, after


@torch.no_grad()
def _plain_copy(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    # fully_shard replaces the model's class by a subclass.
    kind: Any = next(kind for kind in type(model).__mro__ if not issubclass(kind, FSDPModule))
    with torch.device("meta"):
        copy: PreTrainedModel = kind(model.config)
    for weight in copy.parameters():
        weight.data = weight.data.to(dtype)
    copy.to_empty(device="cuda" if torch.cuda.is_initialized() else "cpu")
    copy.tie_weights()
    for name, weight in copy.named_parameters():
        weight.copy_(full_tensor(model.get_parameter(name).to(dtype)))
    for name, buffer in copy.named_buffers():
        buffer.copy_(model.get_buffer(name))
    return copy.eval()


def as_forward_method(model: nn.Module, function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `function`, which uses the weights of `model`, as one that can be called while these are sharded.

    They are gathered before the call and freed after its backward pass, as for the model's own `forward`.
    """
    if not isinstance(model, FSDPModule):
        return function
    from torch.distributed.fsdp import register_fsdp_forward_method

    name = f"_{function.__name__}_of_shards"
    setattr(model, name, function)
    register_fsdp_forward_method(model, name)
    method: Callable[..., Any] = getattr(model, name)
    return method


def collect_full_tensors(tensors: Iterator[tuple[str, Tensor]], dtype: torch.dtype, ranks: Ranks) -> dict[str, Tensor]:
    """Collects full tensors on the CPU of rank 0; on other ranks the result is empty. Collective.

    Args:
        tensors: with their names, in the same order on every rank; sharded or not.
        dtype: of floating-point results; shards are cast before they are sent.
        ranks: this process among the ranks.
    """
    collected = {}
    for name, tensor in tensors:
        value = tensor.detach()
        value = full_tensor(value.to(dtype) if value.is_floating_point() else value)
        if ranks.is_first:
            collected[name] = value.cpu()
    return collected


def full_tensor(tensor: Tensor) -> Tensor:
    """Returns the full tensor of a sharded one, on every rank; any other unchanged. Collective."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _meshes(trainer: TrainerConfig, device: torch.device) -> tuple[DeviceMesh, DeviceMesh, DeviceMesh | None]:
    """Returns the device meshes of the layers' shards, of the root's shards and, if layers are split, of the split.

    With several replicas of the weights, the first two begin with a dimension of replicas.
    """
    from torch.distributed.device_mesh import init_device_mesh

    size, ways = dist.get_world_size(), trainer.tensor_parallel
    shards = trainer.shard_size or size
    replicas, dimensions = size // shards, ("replicate", "shard") if size > shards else ("shard",)
    root = init_device_mesh(device.type, (replicas, shards), mesh_dim_names=("replicate", "shard"))[dimensions]
    if ways == 1:
        return root, root, None
    # Weights of the root are not split, so ranks that share a layer hold different shards of them.
    names = ("replicate", "shard", tensor_parallel.DIMENSION)
    split = init_device_mesh(device.type, (replicas, shards // ways, ways), mesh_dim_names=names)
    return split[dimensions], root, split[tensor_parallel.DIMENSION]


def _compute_buffers(model: PreTrainedModel, device: torch.device) -> None:
    """Computes the buffers that no folder stores (rotary frequencies), as transformers does for its own empty models."""
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
                        "and which cannot be computed for a sharded model. Write trainer.strategy=ddp (on one device: single), "
                        "which loads the full model."
                    )


def _read_weights(model: PreTrainedModel, folder: Path) -> None:
    import torch.distributed.checkpoint as dcp
    from safetensors import safe_open
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    files = weight_files(folder, str(folder))
    stored: set[str] = set()
    for path in files:
        with safe_open(path, framework="pt") as file:
            stored |= set(file.keys())
    persistent = model.state_dict().keys()
    # peft moves a matrix with an adapter one level down.
    own = {name.replace(".base_layer.", "."): name for name, _ in model.named_parameters() if ".lora_" not in name}
    wanted = {stored_as: model.get_parameter(name).detach() for stored_as, name in own.items()}
    wanted |= {name: buffer for name, buffer in model.named_buffers() if name in persistent}
    if wanted.keys() <= stored:
        dcp.load(wanted, storage_reader=_weight_reader(files))
        return
    # Some models are stored under other names, or in other pieces, than they compute with; transformers converts them.
    full = load_model(folder, "master", "cpu").state_dict() if dist.get_rank() == 0 else {}
    full = {own.get(name, name): weight for name, weight in full.items()}
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=False)  # adapters are in no folder
    set_model_state_dict(model, full, options=options)


def _weight_reader(files: list[Path]) -> Any:
    """Returns a reader of these files alone, since others in the folder may hold the same names."""
    from torch.distributed.checkpoint import HuggingFaceStorageReader

    reader = HuggingFaceStorageReader(str(files[0].parent))
    setattr(reader.fs, "ls", lambda path: [str(file) for file in files])  # noqa: B010 (mypy)
    return reader
