"""Ranks share the problems of a probe, decode whole weights, and leave probes out together."""

from functools import partial
from pathlib import Path

import pytest
import torch

from dgr_lightning.config import Config
from dgr_lightning.distributed.fsdp import unsharded
from dgr_lightning.distributed.launch import run_ranks
from dgr_lightning.distributed.ranks import Ranks
from dgr_lightning.engines.transformers import static_steps
from dgr_lightning.engines.transformers.engine import TransformersEngine
from dgr_lightning.models.chat import Chat
from dgr_lightning.scoring.judges.keywords import KeywordJudge
from dgr_lightning.training.fit import fit
from dgr_lightning.training.probes import Probes
from tests.helpers.rank_trainings import config
from tests.helpers.trainings import curve, examples, save_base


def with_probes(cfg: Config) -> Config:
    cfg.probes.tasks, cfg.probes.size, cfg.probes.max_new_tokens = ["micro-short", "micro-harmful", "micro-benign"], 5, 12
    cfg.probes.temperature, cfg.probes.top_p, cfg.probes.top_k, cfg.engine.precision = 0.0, 1.0, 0, "fp32"
    return cfg


def train(base: Path, cfg: Config, run_dir: Path) -> list[str]:
    """Returns the keys that this rank decoded in its first probe."""
    chat, decoded = Chat.load(base), []
    real = TransformersEngine.generate

    def generate(self, requests, sampling):
        decoded.append([request.key for request in requests])
        return real(self, requests, sampling)

    TransformersEngine.generate = generate  # type: ignore[method-assign]
    try:
        fit(base, chat, examples(), cfg, run_dir, Probes(with_probes(cfg), chat, KeywordJudge()))
    finally:
        TransformersEngine.generate = real  # type: ignore[method-assign]
    return decoded[0]


def hooks_inside(model, step: int) -> dict[str, float]:
    """A probe of how many hooks stand around the layers while weights are whole."""
    with unsharded(model, "fp32") as whole:
        inside = sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in whole.modules())
    around = sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules())
    return {"probe/inside": inside, "probe/around": around}


def short_of_memory(base: Path, cfg: Config, run_dir: Path) -> None:
    """The second rank runs out of memory in the probe at step 10."""
    real, calls = TransformersEngine.generate, []

    def generate(self, requests, sampling):
        calls.append(0)
        if Ranks.here().rank == 1 and len(calls) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(self, requests, sampling)

    TransformersEngine.generate = generate  # type: ignore[method-assign]
    chat = Chat.load(base)
    fit(base, chat, examples(), cfg, run_dir, Probes(with_probes(cfg), chat, KeywordJudge()))
    TransformersEngine.generate = real  # type: ignore[method-assign]


def all_in_the_same_ranks(base: Path, folder: Path) -> list[list[str]]:
    shared = Ranks.here().all_gather(train(base, config("fsdp"), folder / "fsdp"))
    train(base, config("ddp"), folder / "ddp")
    static_steps.BLOCK_STEPS["cpu"] = 4
    train(base, config("fsdp"), folder / "blocks")
    static_steps.BLOCK_STEPS["cpu"] = 1
    fit(base, Chat.load(base), examples(), config("fsdp"), folder / "hooks", hooks_inside)
    short_of_memory(base, config("fsdp"), folder / "short")
    return shared


@pytest.mark.slow
def test_two_ranks_find_what_one_does_and_stop_probing_together(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "Qwen3", tie_word_embeddings=False, head_dim=8)
    asked = train(base, config("single"), tmp_path / "single")
    shared = run_ranks(partial(all_in_the_same_ranks, base, tmp_path), 2, num_threads=1)
    assert sorted(shared[0] + shared[1]) == sorted(asked) and len(asked) == 15
    for task in ("micro-short", "micro-harmful", "micro-benign"):
        sizes = [sum(key.startswith(f"{task}/") for key in keys) for keys in shared]
        assert sorted(sizes) == [2, 3], "each rank has as good as the same share of every task, and so of its long outputs"
    names = [
        f"probe/{task}" for task in ("micro-short/accuracy", "micro-harmful/refusal_rate", "micro-benign/over_refusal_rate")
    ]
    for run in ("fsdp", "ddp", "blocks"):
        assert [curve(tmp_path / run, name) for name in names] == [curve(tmp_path / "single", name) for name in names], run
    inside, around = (curve(tmp_path / "hooks", f"probe/{where}") for where in ("inside", "around"))
    assert set(inside.values()) == {0.0} and min(around.values()) > 0
    assert list(curve(tmp_path / "short", names[0])) == [0] and list(curve(tmp_path / "short"))[-1] == 20
