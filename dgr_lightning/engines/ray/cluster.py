"""The Ray cluster that engine=ray computes on: joined or started, its devices, and whether its nodes have what they need.

A node needs Ray and vLLM in the versions of the driver's node, and the model's folder under the same path; this package is sent
along. The driver has to run on a node of the cluster: Ray requires it.
"""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dgr_lightning import threads
from dgr_lightning.config import EngineConfig
from dgr_lightning.engines.vllm import VLLM
from dgr_lightning.engines.vllm.environments import COMMON, refuse_tensor_parallel_on_cpu
from dgr_lightning.errors import UserError, one_line

_LOCAL = "local"
_PACKAGE = Path(__file__).resolve().parents[2]

# Environment of Ray in the driver; it overrides the user's shell.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # An actor without a GPU keeps CUDA_VISIBLE_DEVICES as it is: without this, Ray warns of that.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # In a cluster started here, the processes that an engine has started end with it, however it ends.
    "RAY_process_group_cleanup_enabled": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
_INSPECTION_SECONDS, _SECONDS_TO_END = 120.0, 20.0


@dataclass(frozen=True)
class Node:
    """A living node: Ray's id, its address, and the devices that Ray lends there."""

    id: str
    address: str
    num_cpus: int
    num_gpus: int


@dataclass(frozen=True)
class Gpus:
    """The GPUs of the node that has the least of each.

    Attributes:
        number: of a node.
        memory: bytes of one.
        batch_size: sequences that vLLM's `LLM` decodes together on it, where nothing names a number.
        batched_tokens: tokens of a step, likewise.
    """

    number: int
    memory: int
    batch_size: int
    batched_tokens: int


@dataclass(frozen=True)
class Allocation:
    """The number of engines on a cluster, and the devices that Ray reserves for each."""

    num_engines: int
    cpus_each: int
    gpus_each: int


class Cluster:
    """A cluster whose driver is this process.

    Attributes:
        started: this process has started it, so that it ends with this process.
    """

    # A process is in one cluster at a time. It leaves with the last of its engines, unless other code had joined before.
    _num_users: ClassVar[int] = 0

    def __init__(self, address: str | None, variables: dict[str, str]) -> None:
        """Joins or starts a cluster; a process that is in one already stays in that one.

        Args:
            address: of the cluster; None: RAY_ADDRESS where it is set, else a cluster of this machine alone is started.
            variables: of the environment of Ray's processes.

        Raises:
            UserError: no cluster has this address, or it does not accept this process.
        """
        address = address or os.environ.get("RAY_ADDRESS") or _LOCAL
        self.started = False
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._counted = bool(Cluster._num_users) or not ray.is_initialized()
        if ray.is_initialized():
            Cluster._num_users += self._counted
            return
        if address.startswith("ray://"):
            raise UserError(
                f"engine.ray_address={address}: Ray Data is driven from a node of the cluster, not by Ray's client. Start this "
                "command on one of the nodes, with engine.ray_address=auto."
            )
        os.environ.update(_ENVIRONMENT)
        self.started = address == _LOCAL
        options: dict[str, Any] = {"include_dashboard": False} if self.started else {}
        runtime = {"env_vars": variables, "py_modules": [str(_PACKAGE)], "excludes": ["**/__pycache__"]}
        # One attempt to join, which takes half a minute, instead of twenty. A cluster that starts is given Ray's own time.
        patience = {} if self.started else {"RAY_gcs_server_port_wait_time_s": "1"}
        try:
            with _in_environment(patience):
                ray.init(address, runtime_env=runtime, log_to_driver=False, logging_level=logging.ERROR, **options)
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise UserError(
                f"engine.ray_address={address}: no Ray cluster that this process could join ({_last_line(error)}). Start one "
                "from this environment with `ray start --head`, on further nodes `ray start --address=<head>:6379`; or leave "
                "engine.ray_address out: then one is started on this machine."
            ) from None
        Cluster._num_users += 1
        self._watchdog = _start_watchdog() if self.started else None

    def nodes(self) -> list[Node]:
        """Returns the nodes that are alive."""
        return [
            Node(
                node["NodeID"],
                node["NodeManagerAddress"],
                int(node["Resources"].get("CPU", 0)),
                int(node["Resources"].get("GPU", 0)),
            )
            for node in ray.nodes()
            if node["Alive"]
        ]

    def wait_for_dead_nodes(self) -> None:
        """Has every node answer, until Ray has noticed which of them are dead: about 15 seconds for each of those."""
        ping = ray.remote(num_cpus=0, max_retries=0)(_ping)
        answers = [ping.options(scheduling_strategy=_pinned_to(node)).remote() for node in self.nodes()]
        ray.wait(answers, num_returns=len(answers), timeout=_INSPECTION_SECONDS)

    def allocate(self, engine: EngineConfig, device: str, *, fewer_allowed: bool = False) -> Allocation:
        """Divides the devices among engines: `engine.replicas` of them, else one per GPU, tensor-parallel group or CPU node.

        Args:
            engine: `replicas` and `tensor_parallel` are read.
            device: `cpu` or `cuda`.
            fewer_allowed: start fewer engines where there are devices for some but not for all.

        Raises:
            UserError: there are not enough devices.
        """
        nodes, size = self.nodes(), engine.devices_each
        if device == "cpu":
            refuse_tensor_parallel_on_cpu(engine)
            devices = [node.num_cpus for node in nodes if node.num_cpus]
            room = sum(devices)
            number = engine.replicas or len(devices)
        else:
            # The GPUs of a group are on one node: between nodes, the exchange after every layer takes longer than the layer.
            devices = [node.num_gpus for node in nodes if node.num_gpus]
            room = sum(gpus // size for gpus in devices)
            number = engine.replicas or room
        if fewer_allowed:
            number = min(number, room)
        if not number or number > room:
            raise UserError(
                f"engine.replicas={engine.replicas or 1} engine.tensor_parallel={size}: the Ray cluster has {sum(devices)} "
                f"{'GPU' if device == 'cuda' else 'CPU'}(s) on {len(nodes)} node(s), room for {room} engine(s). Write smaller "
                "numbers, or add nodes to the cluster."
            )
        if device == "cuda":
            return Allocation(number, 1, size)
        # As many CPUs each as spread the engines evenly over nodes of the same size.
        return Allocation(number, max(1, min(devices) // -(-number // len(devices))), 0)

    def check_nodes(self, folder: Path, device: str) -> None:
        """Checks that every node that may get an engine has the model and vLLM.

        Args:
            folder: of the model, on this machine.
            device: `cpu` or `cuda`.

        Raises:
            UserError: naming the nodes and what they lack.
        """
        nodes = [node for node in self.nodes() if (node.num_gpus if device == "cuda" else node.num_cpus)]
        path = str(folder.resolve())
        inspect = ray.remote(num_cpus=0, max_retries=0)(_inspect)
        inspections = [inspect.options(scheduling_strategy=_pinned_to(node)).remote(path) for node in nodes]
        try:
            found = ray.get(inspections, timeout=_INSPECTION_SECONDS)
        except ray.exceptions.RayError as error:
            raise UserError(f"engine=ray: a node of the cluster could not be inspected: {_last_line(error)}") from None
        here = _inspect(path)
        no_vllm = sorted({node.address for node, there in zip(nodes, found, strict=True) if there[1] != here[1]})
        if no_vllm:
            raise UserError(
                f"engine=ray: {here[1] or 'vLLM'} is not installed on {', '.join(no_vllm)}. Install the same requirements "
                "there (requirements-gpu.txt), and start Ray from that environment."
            )
        no_model = sorted({node.address for node, there in zip(nodes, found, strict=True) if there[0] != here[0]})
        if no_model:
            raise UserError(
                f"engine=ray: {path} is not on {', '.join(no_model)}, or another model is. Every node reads the model from "
                "this path: put it on a file system that all nodes share, or copy it to each, and name it with model.path=."
            )

    def gpus(self) -> Gpus:
        """Returns what the GPUs of every node have at least.

        Raises:
            UserError: a node could not be inspected, or none has a GPU.
        """
        nodes = [node for node in self.nodes() if node.num_gpus]
        if not nodes:
            raise UserError("engine=ray: the cluster has no GPU. Add a node that has one, or take trainer.accelerator=cpu.")
        inspect = ray.remote(num_cpus=0, max_retries=0)(_inspect_gpu)
        try:
            answers = [inspect.options(scheduling_strategy=_pinned_to(node)).remote() for node in nodes]
            found = ray.get(answers, timeout=_INSPECTION_SECONDS)
        except ray.exceptions.RayError as error:
            raise UserError(f"engine=ray: a node of the cluster could not be inspected: {_last_line(error)}") from None
        return Gpus(min(node.num_gpus for node in nodes), *map(min, zip(*found, strict=True)))

    def leave(self) -> None:
        """Leaves the cluster, and ends it if this process has started it; does nothing where other code has joined it before.

        The cluster's processes on this machine have ended when this returns, so that its devices' memory is free.
        """
        Cluster._num_users -= self._counted
        if not self._counted or Cluster._num_users:
            return
        processes = psutil.Process().children(recursive=True) if self.started else []
        if self._watchdog:
            self._watchdog.kill()
            self._watchdog.wait()
        ray.shutdown()
        for process in psutil.wait_procs(processes, _SECONDS_TO_END)[1]:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def environment(engine: EngineConfig, device: str) -> dict[str, str]:
    """Returns vLLM's variables on every node; they override the node's own."""
    variables = dict(COMMON)
    if device == "cpu":
        variables["VLLM_CPU_KVCACHE_SPACE"] = str(engine.cpu_cache_gib)
        variables |= {name: os.environ[name] for name in ("OMP_NUM_THREADS", *threads.VARIABLES) if name in os.environ}
    return variables


@contextmanager
def _in_environment(variables: dict[str, str]) -> Iterator[None]:
    """Sets those variables that are not set, while the block runs."""
    added = variables.keys() - os.environ.keys()
    os.environ.update({name: variables[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _pinned_to(node: Node) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node.id, soft=False)


def _ping() -> None:
    """Does nothing; runs on a node whose answer alone matters."""


def _start_watchdog() -> subprocess.Popen[bytes]:
    """Starts a process that kills Ray's agents when this process dies; the rest of a local cluster then ends by itself.

    The agents end too, but only after a minute of attempts to reach the dead process (seen in Ray 2.60).
    """
    agents = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # some of them are short-lived
            agents += [str(process.pid)] if "agent" in " ".join(process.cmdline()).lower() else []
    # The pipe closes with this process: then `read` returns.
    return subprocess.Popen(
        ["sh", "-c", 'read _; kill -9 "$@"', "sh", *agents],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _inspect(folder: str) -> tuple[list[tuple[str, int]], str]:
    """Returns names and sizes of a folder's files, and the distribution and version of vLLM; runs on every node."""
    path = Path(folder)
    files = sorted((file.name, file.stat().st_size) for file in path.iterdir() if file.is_file()) if path.is_dir() else []
    for name in VLLM.distributions:
        try:
            return files, f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    return files, ""


def _inspect_gpu() -> tuple[int, int, int]:
    """Returns memory, sequences and tokens as in `Gpus`; runs on every node with a GPU, and starts no CUDA there."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.platforms import current_platform
    from vllm.usage.usage_lib import UsageContext

    tokens, sequences = EngineArgs.get_batch_defaults(1)
    memory = current_platform.get_device_total_memory()
    return int(memory), int(sequences[UsageContext.LLM_CLASS]), int(tokens[UsageContext.LLM_CLASS])


def _last_line(error: Exception) -> str:
    """Returns the last line of Ray's message, which begins with its way through Ray's processes."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {one_line(lines[-1], 400) if lines else ''}"
