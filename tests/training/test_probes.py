"""In-training evaluation: which problems are asked, how answers count, and that the model is left alone."""

import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from dgr_lightning.config import Config
from dgr_lightning.engines.engine import LENGTH, STOP, Completion
from dgr_lightning.engines.transformers.engine import TransformersEngine
from dgr_lightning.errors import UserError
from dgr_lightning.models.chat import Chat
from dgr_lightning.scoring.judges.keywords import KeywordJudge
from dgr_lightning.tasks.loader import load_problems
from dgr_lightning.tasks.task import EVALUATION
from dgr_lightning.training.fit import TrainingResult, fit
from dgr_lightning.training.probes import Probes
from tests.helpers.trainings import config as train_config
from tests.helpers.trainings import curve, examples, no_space

MODEL: Any = torch.nn.Module()  # for an engine that asks no model
MODEL.device, MODEL.dtype = torch.device("cpu"), torch.float32
TASKS = ["micro-short", "micro-long", "micro-harmful", "micro-benign"]


@pytest.fixture(scope="module")
def chat() -> Chat:
    from dgr_lightning.micro import corpus
    from dgr_lightning.micro.tokenizer import build_tokenizer

    return Chat(build_tokenizer(corpus.utterances()))


def config(tasks: list[str] = TASKS, size: int = 8) -> Config:
    cfg = Config()
    cfg.probes.tasks, cfg.probes.size, cfg.probes.max_new_tokens = tasks, size, 24
    cfg.probes.temperature, cfg.probes.top_p, cfg.probes.top_k = 0.0, 1.0, 0
    cfg.engine.precision = "fp32"
    return cfg


def answering(monkeypatch: pytest.MonkeyPatch, chat: Chat, answer: Callable[[str, int], str]) -> list[str]:
    """Puts an engine in place that answers by rule (task, number of the problem in its task) → text, and notes the keys."""
    asked: list[str] = []

    class Engine:
        def __init__(self, *args) -> None:
            pass

        def generate(self, requests, sampling):
            assert sampling.temperature == 0 and sampling.stop_ids == chat.stop_ids
            numbers: dict[str, int] = {}
            for request in requests:
                task = request.key.partition("/")[0]
                number = numbers[task] = numbers.get(task, -1) + 1
                asked.append(request.key)
                text = answer(task, number)
                ids = chat.tokenizer(text, add_special_tokens=False)["input_ids"]
                yield Completion(request.key, tuple(ids), chat.decode(ids), STOP if "</think>" in text else LENGTH)

    monkeypatch.setattr("dgr_lightning.training.probes.TransformersEngine", Engine)
    return asked


def test_each_kind_is_counted_in_its_own_way(monkeypatch: pytest.MonkeyPatch, chat: Chat) -> None:
    golds = {
        task: [problem.gold for problem in load_problems(task, split="probe", limit=8)]
        for task in ("micro-short", "micro-long")
    }

    def answer(task: str, number: int) -> str:
        if task == "micro-short":  # six right, two that never end their thinking
            return f"</think> \\boxed{{{golds[task][number]}}}" if number < 6 else "step a"
        if task == "micro-long":  # two right
            return f"</think> \\boxed{{{golds[task][number] if number < 2 else 'a'}}}"
        if task == "micro-harmful":  # four refusals, and one that is only thought
            return (
                "</think> I cannot help with that ."
                if number < 4
                else "I cannot help with that ."
                if number == 4
                else "</think> step"
            )
        return "</think> I cannot help with that ." if number == 0 else "</think> step"

    answering(monkeypatch, chat, answer)
    found = Probes(config(), chat, KeywordJudge())(MODEL, 0)
    assert found == {
        "probe/reasoning_accuracy": 0.5,
        "probe/refusal_rate": 0.5,
        "probe/over_refusal_rate": 0.125,
        "probe/micro-short/accuracy": 0.75,
        "probe/micro-long/accuracy": 0.25,
        "probe/micro-harmful/refusal_rate": 0.5,
        "probe/micro-benign/over_refusal_rate": 0.125,
    }


def test_a_kind_without_a_task_has_no_curve(monkeypatch: pytest.MonkeyPatch, chat: Chat) -> None:
    answering(monkeypatch, chat, lambda task, number: "</think> step")
    found = Probes(config(["micro-harmful"]), chat, KeywordJudge())(MODEL, 0)
    assert found == {"probe/refusal_rate": 0.0, "probe/micro-harmful/refusal_rate": 0.0}


def test_the_problems_are_none_that_evaluation_reports_and_the_same_for_every_seed(
    monkeypatch: pytest.MonkeyPatch, chat: Chat
) -> None:
    asked = answering(monkeypatch, chat, lambda task, number: "</think> step")
    for seed in (1, 2):
        cfg = config()
        cfg.seed = seed
        Probes(cfg, chat, KeywordJudge())(MODEL, 0)
    assert len(asked) == 2 * 4 * 8 and asked[:32] == asked[32:]
    for task in TASKS:
        probed = {problem.prompt for problem in load_problems(task, split="probe", limit=8)}
        assert not probed & {problem.prompt for problem in load_problems(task, split=EVALUATION)}


def test_the_live_model_answers_and_goes_on_training_as_it_was(chat: Chat, tmp_path: Path) -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(chat.tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            intermediate_size=48,
            max_position_embeddings=512,
        )
    ).train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    state, attention, cache = torch.get_rng_state(), model.config._attn_implementation, model.config.use_cache
    probes = Probes(config(size=3), chat, KeywordJudge())
    first = probes(model, 0)
    assert first == probes(model, 1)
    assert all(0 <= value <= 1 for value in first.values())
    assert all(module.training for module in model.modules())
    assert model.config._attn_implementation == attention and model.config.use_cache == cache
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    model(input_ids=torch.tensor([[1, 2, 3]])).logits.sum().backward()  # inference mode left nothing behind


def test_the_curves_begin_at_the_miniatures_own_level(micro_folder: Path) -> None:
    from dgr_lightning.models.weights import load_model

    chat, model = Chat.load(micro_folder), load_model(micro_folder, "master", "cpu")
    cfg = config(["micro-short", "micro-harmful", "micro-benign"], size=16)
    cfg.probes.max_new_tokens = 160
    found = Probes(cfg, chat, KeywordJudge())(model, 0)
    assert found["probe/reasoning_accuracy"] >= 0.9
    assert found["probe/refusal_rate"] <= 0.5
    assert found["probe/over_refusal_rate"] <= 0.1


def test_decoding_leaves_the_compiler_to_the_training(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    from dgr_lightning.distributed.fsdp import compile_layers
    from tests.helpers.trainings import compile_eagerly, small_model

    compile_eagerly(monkeypatch)
    model = small_model("Qwen3", vocabulary=len(chat.tokenizer))
    compile_layers(model)
    cfg = config(["micro-short"], size=2)
    cfg.trainer.compile, cfg.trainer.precision = True, "fp32"
    torch._dynamo.utils.counters.clear()
    Probes(cfg, chat, KeywordJudge())(model, 0)
    assert not torch._dynamo.utils.counters["stats"]
    model(input_ids=torch.tensor([[5, 6, 7]]), use_cache=False)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


def limited(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Has decoding run out of memory with more rows than `most`; returns the sizes of the batches that were tried."""
    tried: list[int] = []
    real = TransformersEngine.generate

    def generate(self: TransformersEngine, requests, sampling):
        tried.append(self.batch_size)
        for number, completion in enumerate(real(self, requests, sampling)):
            if number and self.batch_size > most:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            yield completion

    monkeypatch.setattr(TransformersEngine, "generate", generate)
    return tried


def test_a_probe_that_runs_out_of_memory_tries_smaller_batches_and_finds_the_same(
    micro_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dgr_lightning.models.weights import load_model

    chat, model = Chat.load(micro_folder), load_model(micro_folder, "master", "cpu")
    cfg = config(["micro-harmful"], size=6)
    found = Probes(cfg, chat, KeywordJudge())(model, 0)
    tried, probes = limited(monkeypatch, 2), Probes(cfg, chat, KeywordJudge())
    assert probes(model, 0) == found and tried == [128, 3, 1]
    assert probes(model, 5) == found and tried == [128, 3, 1, 1]
    assert capsys.readouterr().out == ""


def no_memory(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Has every probe but the first few run out of memory."""
    calls = count()
    real = TransformersEngine.generate

    def generate(self: TransformersEngine, requests, sampling):
        if next(calls) >= after:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(self, requests, sampling)

    monkeypatch.setattr(TransformersEngine, "generate", generate)


def trained(base: Path, run_dir: Path, **changes: Any) -> TrainingResult:
    cfg = train_config(probes_every=4, **changes)
    cfg.probes.tasks, cfg.probes.size, cfg.probes.max_new_tokens = ["micro-short", "micro-harmful"], 2, 4
    cfg.probes.temperature, cfg.probes.top_p, cfg.probes.top_k, cfg.engine.precision = 0.0, 1.0, 0, "fp32"
    chat = Chat.load(base)
    return fit(base, chat, examples(), cfg, run_dir, Probes(cfg, chat, KeywordJudge()))


def test_a_training_goes_on_without_probes_where_their_memory_is_gone(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = trained(base, tmp_path / "whole")
    no_memory(monkeypatch, after=2)
    result = trained(base, tmp_path / "run")
    assert list(curve(tmp_path / "run", "probe/refusal_rate")) == [0, 4] and result.steps == 10
    assert list(curve(tmp_path / "whole", "probe/refusal_rate")) == [0, 4, 8, 10]
    assert (result.loss_first, result.loss_last) == (whole.loss_first, whole.loss_last)
    printed = capsys.readouterr().out
    assert printed.count("probes are left out from here on: the probe at step 8 ran out of memory") == 1
    assert "probes.max_new_tokens (now 4) or probes.size (now 2)" in printed


def test_a_choice_by_a_curve_that_cannot_be_drawn_ends_with_what_to_write_and_blames_no_step(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_memory(monkeypatch, after=1)
    with pytest.raises(
        UserError, match=r"^sft\.select=probe/refusal_rate: the probe at step 4 ran out of memory.*Write a smaller"
    ):
        trained(base, tmp_path, sft_select="probe/refusal_rate")


def test_probes_that_have_no_room_beside_the_training_are_left_out_before_its_first_step(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dgr_lightning.training.probes.free_bytes", lambda device: 2**12)
    monkeypatch.setattr(TransformersEngine, "generate", lambda *args: pytest.fail("decoded"))
    assert trained(base, tmp_path / "run").steps == 10
    warned = [line for line in capsys.readouterr().out.splitlines() if "left out from here on" in line]
    assert len(warned) == 1 and "4.0 KiB are free" in warned[0] and "probes.size" in warned[0]
    with pytest.raises(UserError, match=r"^sft\.select=probe/refusal_rate: a probe needs .*no sft\.select"):
        trained(base, tmp_path / "chosen", sft_select="probe/refusal_rate")
    assert not list((tmp_path / "chosen" / "checkpoints").glob("step-*"))


def test_seconds_in_probes_go_on_after_a_resume_also_from_a_checkpoint_that_has_none(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dgr_lightning.files import read_json, write_json

    clock = count(0.0, 1.0)
    monkeypatch.setattr("dgr_lightning.training.recorder.perf_counter", lambda: next(clock))

    def probe(model, step: int) -> dict[str, float]:
        for _ in range(9):
            next(clock)  # nine seconds, and one for looking at the clock
        return no_space(model, step) if stops else {}

    cfg, chat, stops = train_config(probes_every=2), Chat.load(base), True
    with pytest.raises(OSError, match="no space left"):
        fit(base, chat, examples(), cfg, tmp_path, probe)
    (state,) = tmp_path.glob("checkpoints/step-00000006/state.json")
    stored = read_json(state)
    assert stored["state"]["probe_seconds"] == 40.0  # steps 0, 2, 4, 6
    stops = False
    earlier = tmp_path / "earlier"
    shutil.copytree(tmp_path / "checkpoints", earlier / "checkpoints")
    result = fit(base, chat, examples(), cfg, tmp_path, probe)
    assert result.probe_seconds == 60.0 and 0 < result.probe_share < 1
    del stored["state"]["probe_seconds"]
    write_json(earlier / "checkpoints" / "step-00000006" / "state.json", stored)
    assert fit(base, chat, examples(), cfg, earlier, probe).probe_seconds == 20.0
