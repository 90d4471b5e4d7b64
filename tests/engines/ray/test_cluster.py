"""The cluster that engine=ray computes on: joined or started, its nodes inspected, its devices divided among engines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from time import monotonic, sleep

import pytest

from dgr_lightning.config import EngineConfig
from dgr_lightning.errors import UserError

if not find_spec("ray") or not find_spec("vllm"):
    pytest.skip("Ray and vLLM are not both installed here", allow_module_level=True)

import psutil
import ray
from ray.cluster_utils import Cluster as ProcessCluster

from dgr_lightning.engines.ray import cluster as cluster_module
from dgr_lightning.engines.ray.cluster import Allocation, Cluster, Node
from tests.helpers.processes import lives


@pytest.mark.slow
def test_a_node_without_the_model_is_named(two_nodes: ProcessCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = os.getpid()
    (tmp_path / "config.json").write_text("{}")

    def elsewhere(folder: str) -> tuple[list[tuple[str, int]], str]:
        return ([("config.json", 2)] if os.getpid() == driver else []), "vllm 1"

    cluster = Cluster(two_nodes.address, {})
    try:
        assert not cluster.started
        cluster.check_nodes(tmp_path, "cpu")
        monkeypatch.setattr(cluster_module, "_inspect", elsewhere)
        with pytest.raises(UserError, match=r"is not on [\d.]+, or another model is.*model\.path="):
            cluster.check_nodes(tmp_path, "cpu")
        assert cluster.allocate(EngineConfig(), "cpu") == Allocation(2, 1, 0)
    finally:
        cluster.leave()


@pytest.mark.slow
def test_a_cluster_started_here_dies_with_this_process() -> None:
    program = (
        "import psutil, time; from dgr_lightning.engines.ray.cluster import Cluster; cluster = Cluster('local', {});"
        "print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        children = []
        for pid in process.stdout.readline().split():
            with suppress(psutil.NoSuchProcess):  # some of them only look something up
                children.append(psutil.Process(int(pid)))
        assert len(children) > 3
        os.kill(process.pid, signal.SIGKILL)
    deadline = monotonic() + 60
    while alive := [child for child in children if lives(child)]:
        assert monotonic() < deadline, alive
        sleep(0.2)


def test_a_cluster_that_cannot_be_joined_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def init(address: str, **options: object) -> None:
        asked.append((address, options.get("include_dashboard")))
        raise ConnectionError("nobody there")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UserError, match=r"engine\.ray_address=10\.0\.0\.1:6379: .*nobody there.*ray start --head"):
        Cluster("10.0.0.1:6379", {})
    with pytest.raises(UserError):
        Cluster(None, {})
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    with pytest.raises(UserError):
        Cluster(None, {})
    assert asked == [("10.0.0.1:6379", None), ("local", False), ("10.0.0.2:6379", None)]
    with pytest.raises(UserError, match=r"engine\.ray_address=ray://10\.0\.0\.1:10001.*engine\.ray_address=auto"):
        Cluster("ray://10.0.0.1:10001", {})


def test_engines_are_placed_by_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = object.__new__(Cluster)
    nodes = [Node("a", "10.0.0.1", 16, 8), Node("b", "10.0.0.2", 32, 6), Node("c", "10.0.0.3", 0, 0)]
    monkeypatch.setattr(Cluster, "nodes", lambda self: nodes)
    assert cluster.allocate(EngineConfig(), "cuda") == Allocation(14, 1, 1)
    # Groups do not cross nodes: two on the first, one on the second.
    assert cluster.allocate(EngineConfig(tensor_parallel=4), "cuda") == Allocation(3, 1, 4)
    assert cluster.allocate(EngineConfig(), "cpu") == Allocation(2, 16, 0)
    assert cluster.allocate(EngineConfig(replicas=4), "cpu") == Allocation(4, 8, 0)
    with pytest.raises(UserError, match=r"replicas=4 engine\.tensor_parallel=4: the Ray cluster has 14 GPU.*room for 3"):
        cluster.allocate(EngineConfig(replicas=4, tensor_parallel=4), "cuda")
    # After a death, what is left is right too, but something has to be left.
    assert cluster.allocate(EngineConfig(replicas=4, tensor_parallel=4), "cuda", fewer_allowed=True) == Allocation(3, 1, 4)
    nodes[:] = nodes[2:]
    with pytest.raises(UserError, match="has 0 GPU"):
        cluster.allocate(EngineConfig(), "cuda", fewer_allowed=True)
    with pytest.raises(UserError, match=r"engine\.tensor_parallel=1"):
        cluster.allocate(EngineConfig(tensor_parallel=2), "cpu")
