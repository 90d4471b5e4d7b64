"""engine=ray on a test cluster of two nodes, real processes on this machine: what comes out, from where, and after a death."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from time import monotonic, sleep

import pytest

from dgr_lightning.config import EngineConfig
from dgr_lightning.engines.engine import LENGTH, STOP, Completion, Request, Sampling
from dgr_lightning.errors import UserError

if not find_spec("ray") or not find_spec("vllm"):
    pytest.skip("Ray and vLLM are not both installed here", allow_module_level=True)

import psutil
import ray
from ray.cluster_utils import Cluster as ProcessCluster

from dgr_lightning.engines.ray.cluster import Cluster, Engines, Node
from dgr_lightning.engines.ray.engine import RayEngine

GREEDY = Sampling(temperature=0.0, top_p=1.0, max_new_tokens=40, seed=0, stop_ids=(1, 12))
SAMPLED = Sampling(temperature=0.8, top_p=0.95, max_new_tokens=16, seed=3, stop_ids=(1, 12))
LONG = Sampling(temperature=0.0, top_p=1.0, max_new_tokens=200, seed=0, stop_ids=(1,))
REQUESTS = [Request(f"r{i}/trace/0", [5 + i, 6, 7 + i % 3]) for i in range(32)]
PAIRS = [([5, 6], [7, 8, 9]), ([5, 6], [7]), ([9], []), ([11, 12, 13], [40] * 20)]


class Words:
    """Shows tokens as numbers."""

    pad_id = 0

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))


@pytest.fixture
def two_nodes() -> Iterator[ProcessCluster]:
    """A head and a further node, a CPU each."""
    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    # Ray misses a dead node after five seconds instead of fifteen.
    health = {"health_check_period_ms": 1000, "health_check_initial_delay_ms": 1000}
    cluster = ProcessCluster(
        initialize_head=True, head_node_args={**node, "include_dashboard": False, "_system_config": health}
    )
    try:
        cluster.add_node(**node)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def keyed(completions: Iterator[Completion]) -> dict[str, Completion]:
    """By key, each once."""
    found: dict[str, Completion] = {}
    for completion in completions:
        assert completion.key not in found
        found[completion.key] = completion
    return found


def lives(process: psutil.Process) -> bool:
    """Not where it waits to be reaped, nor where it went between two looks at it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
def test_two_nodes_make_what_one_process_makes_and_outlive_one_of_them(two_nodes: ProcessCluster, micro_folder: Path) -> None:
    from dgr_lightning.engines.transformers.engine import TransformersEngine
    from dgr_lightning.models import weights

    reference = TransformersEngine(weights.load_model(micro_folder, "fp32", "cpu"), Words(), "fp32", 8)
    config = EngineConfig(name="ray", batch_size=8, max_length=256, compile=False, ray_address=two_nodes.address)
    engine = RayEngine(micro_folder, Words(), config, "fp32", "cpu")
    started: list[psutil.Process] = []
    try:
        # The second engine may be ready later than the first.
        begun = monotonic()
        while "2 nodes used" not in engine.pipeline.dataset.stats():
            assert monotonic() < begun + 900, "one node does everything"
            list(engine.generate(REQUESTS[:16], GREEDY))

        # The second half depends on the first, and a score is wanted while something is under way.
        found: dict[str, Completion] = {}

        def in_two_waves() -> Iterator[Request | None]:
            yield from REQUESTS[:16]
            while len(found) < 16:
                yield None
            yield from REQUESTS[16:]

        for completion in engine.generate(in_two_waves(), GREEDY):
            found[completion.key] = completion
            if len(found) == 5:
                scores = engine.score(PAIRS)
        assert found == keyed(reference.generate(REQUESTS, GREEDY))
        assert {completion.finish_reason for completion in found.values()} == {STOP, LENGTH}
        for ours, theirs in zip(scores, reference.score(PAIRS), strict=True):
            assert ours == pytest.approx(theirs, abs=1e-4)
        sampled = keyed(engine.generate(REQUESTS, SAMPLED))
        assert sampled == keyed(reference.generate(REQUESTS, SAMPLED))

        # No room behind the prompt, and room for one token.
        full, nearly = Request("full", [7] * 256), Request("nearly", [7] * 255)
        edge = keyed(engine.generate([full, nearly], LONG))
        assert edge["full"] == Completion("full", (), "", LENGTH)
        assert len(edge["nearly"].token_ids) == 1
        with pytest.raises(UserError, match=r"engine\.max_length=257"):
            engine.score([([5] * 200, [6] * 57)])

        # A generation that is given up leaves nothing behind for the next one.
        for _ in engine.generate(REQUESTS, LONG):
            break

        found = {}
        for completion in engine.generate(REQUESTS, LONG):
            assert completion.key not in found
            found[completion.key] = completion
            if len(found) == 3:
                started = psutil.Process().children(recursive=True)
                [second] = two_nodes.worker_nodes
                two_nodes.remove_node(second, allow_graceful=False)
        assert found == keyed(reference.generate(REQUESTS, LONG))
    finally:
        engine.close()
        # vLLM's engine outlives a Ray worker that is killed; nothing else of this machine is to pay for that.
        for process in started:
            if lives(process) and "EngineCore" in " ".join(process.cmdline()):
                process.kill()
    assert not ray.is_initialized()


@pytest.mark.slow
def test_a_node_without_the_model_is_named(two_nodes: ProcessCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = os.getpid()
    (tmp_path / "config.json").write_text("{}")

    def elsewhere(folder: str) -> tuple[list[tuple[str, int]], str]:
        return ([("config.json", 2)] if os.getpid() == driver else []), "vllm 1"

    cluster = Cluster(two_nodes.address, {})
    try:
        assert not cluster.started
        cluster.check(tmp_path, "cpu")
        monkeypatch.setattr(cluster, "_look", elsewhere)
        with pytest.raises(UserError, match=r"is not on [\d.]+, or another model is.*model\.path="):
            cluster.check(tmp_path, "cpu")
        assert cluster.place(EngineConfig(), "cpu") == Engines(2, 1, 0)
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
    assert cluster.place(EngineConfig(), "cuda") == Engines(14, 1, 1)
    # Groups do not cross nodes: two on the first, one on the second.
    assert cluster.place(EngineConfig(tensor_parallel=4), "cuda") == Engines(3, 1, 4)
    assert cluster.place(EngineConfig(), "cpu") == Engines(2, 16, 0)
    assert cluster.place(EngineConfig(replicas=4), "cpu") == Engines(4, 8, 0)
    with pytest.raises(UserError, match=r"replicas=4 engine\.tensor_parallel=4: the Ray cluster has 14 GPU.*room for 3"):
        cluster.place(EngineConfig(replicas=4, tensor_parallel=4), "cuda")
    # After a death, what is left is right too, but something has to be left.
    assert cluster.place(EngineConfig(replicas=4, tensor_parallel=4), "cuda", at_most=True) == Engines(3, 1, 4)
    nodes[:] = nodes[2:]
    with pytest.raises(UserError, match="has 0 GPU"):
        cluster.place(EngineConfig(), "cuda", at_most=True)
    with pytest.raises(UserError, match=r"engine\.tensor_parallel=1"):
        cluster.place(EngineConfig(tensor_parallel=2), "cpu")
