"""engine=ray on a test cluster of two nodes, real processes on this machine: what comes out, from where, and after a death."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from time import monotonic

import pytest

from dgr_lightning.config import EngineConfig
from dgr_lightning.engines.engine import LENGTH, STOP, Completion, Request, Sampling
from dgr_lightning.errors import UserError

if not find_spec("ray") or not find_spec("vllm"):
    pytest.skip("Ray and vLLM are not both installed here", allow_module_level=True)

import psutil
import ray
from ray.cluster_utils import Cluster as ProcessCluster

from dgr_lightning.engines.ray.engine import RayEngine
from tests.helpers.processes import lives

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


def keyed(completions: Iterator[Completion]) -> dict[str, Completion]:
    """By key, each once."""
    found: dict[str, Completion] = {}
    for completion in completions:
        assert completion.key not in found
        found[completion.key] = completion
    return found


@pytest.mark.slow
def test_two_nodes_make_what_one_process_makes_and_outlive_one_of_them(two_nodes: ProcessCluster, micro_folder: Path) -> None:
    from dgr_lightning.engines.transformers.engine import TransformersEngine
    from dgr_lightning.models import weights

    reference = TransformersEngine(weights.load_model(micro_folder, "fp32", "cpu"), Words(), "fp32", 8)
    settings = {"precision": "fp32", "batch_size": 8, "max_length": 256, "compile": False}
    engine = RayEngine(micro_folder, Words(), EngineConfig(name="ray", ray_address=two_nodes.address, **settings), "cpu")
    started: list[psutil.Process] = []
    try:
        # The second engine may be ready later than the first.
        begun = monotonic()
        while "2 nodes used" not in engine._pool.pipeline.dataset.stats():
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
        for settings in (replace(GREEDY, repetition_penalty=1.2), replace(SAMPLED, repetition_penalty=1.2)):
            penalised = keyed(engine.generate(REQUESTS, settings))
            assert penalised == keyed(reference.generate(REQUESTS, settings)) and penalised not in (found, sampled)

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
