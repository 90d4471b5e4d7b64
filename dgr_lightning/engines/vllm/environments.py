"""Environment variables of the processes that run vLLM: what it needs, and the share of the machine that each engine gets."""

from __future__ import annotations

import os
from importlib import metadata

from dgr_lightning.config import EngineConfig
from dgr_lightning.cuda_allocator import fixed_segments
from dgr_lightning.errors import UserError
from dgr_lightning.threads import chosen_by_user, usable_cores

COMMON = {
    "HF_HUB_OFFLINE": "1",  # the folder has everything
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",  # below it, vLLM may write requests to its log
    # The scheduler and, on a CPU, the model run in the engine's own process. vLLM would leave a second one behind when the
    # first is killed.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    **fixed_segments(),
}
"""Environment of every process that runs vLLM; it overrides the user's shell."""

WORKER = COMMON | {
    # The processes of a tensor-parallel group: a forked one would hold the socket open after the worker's death.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}
"""Environment of a worker of engine=vllm."""


def cuda_environments(engine: EngineConfig) -> list[dict[str, str]]:
    """Returns for each engine the variables that give it its GPUs.

    Raises:
        UserError: there are fewer GPUs than `engine.replicas` and `engine.tensor_parallel` need.
    """
    devices, size = visible_devices(), engine.devices_each
    num_engines = engine.replicas or len(devices) // size
    if not num_engines or num_engines * size > len(devices):
        raise UserError(
            f"engine.replicas={engine.replicas or 1} engine.tensor_parallel={size}: that takes {(engine.replicas or 1) * size} "
            f"GPU(s), and vLLM would find {len(devices)} here. Write smaller numbers."
        )
    return [{"CUDA_VISIBLE_DEVICES": ",".join(devices[i * size : (i + 1) * size])} for i in range(num_engines)]


def visible_devices() -> list[str]:
    """Returns the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them. CUDA is not started here."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [str(i) for i in range(torch.cuda.device_count())] if visible is None else [*filter(None, visible.split(","))]


def cpu_environments(engine: EngineConfig) -> list[dict[str, str]]:
    """Returns for each engine the variables that give it its memory and, if there are several, its share of the cores.

    Raises:
        UserError: `engine.tensor_parallel` is above 1.
    """
    refuse_tensor_parallel_on_cpu(engine)
    num_engines = engine.replicas or 1
    environment = {"VLLM_CPU_KVCACHE_SPACE": str(engine.cpu_cache_gib), **_intel_openmp()}
    if num_engines > 1 and "OMP_NUM_THREADS" not in os.environ:
        environment["OMP_NUM_THREADS"] = str(max(1, usable_cores() // num_engines))
    return [environment] * num_engines


def refuse_tensor_parallel_on_cpu(engine: EngineConfig) -> None:
    """Raises UserError where weights are to be split over several devices and there is only a CPU."""
    if engine.devices_each > 1:
        raise UserError(
            f"engine.tensor_parallel={engine.tensor_parallel}: a CPU is one device; write engine.tensor_parallel=1."
        )


def _intel_openmp() -> dict[str, str]:
    """Returns the variables that replace PyTorch's OpenMP by Intel's, which vLLM's CPU build requires on x86.

    On two cores shared with other work, vLLM generated five times as many tokens with it: PyTorch's keeps idle threads
    spinning. The time after which they sleep here is vLLM's own choice.
    """
    if "LD_PRELOAD" in os.environ:
        return {}
    try:
        files = metadata.files("intel-openmp") or []
    except metadata.PackageNotFoundError:
        return {}
    libraries = [str(file.locate()) for file in files if file.name == "libiomp5.so"]
    waiting = {} if chosen_by_user() else {"KMP_BLOCKTIME": "5"}
    return {"LD_PRELOAD": libraries[0], **waiting} if libraries else {}
