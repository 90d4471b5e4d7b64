"""Which weights are trained: adapters alone, where they were asked for, from their seed; and what is exported."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dgr_lightning.config import TuningConfig
from dgr_lightning.distributed.launch import run_ranks
from dgr_lightning.distributed.ranks import Ranks
from dgr_lightning.errors import UserError
from dgr_lightning.files import write_json
from dgr_lightning.models.chat import Chat
from dgr_lightning.models.folder import check_unquantised
from dgr_lightning.models.weights import load_model
from dgr_lightning.scoring.judges.keywords import KeywordJudge
from dgr_lightning.training.adapters import collect, initialize, targets
from dgr_lightning.training.checkpoints import trained_parameters
from dgr_lightning.training.probes import Probes
from dgr_lightning.training.tuning import empty, load
from tests.helpers import rank_trainings
from tests.helpers.ranks import on_two_ranks
from tests.helpers.runs import ROOT, SMALL, command, environment, run, summary_of
from tests.helpers.trainings import (
    assert_same_weights,
    config,
    curve,
    exported,
    save_base,
    train,
    train_twice,
    weights,
)
from tests.helpers.tunings import FAMILIES, IDS, WIDTHS, logits

LORA = {"tuning_method": "lora", "tuning_rank": 4, "sft_lr": 3e-2}


# --- LoRA -----------------------------------------------------------------------------------------------------------------


def test_lora_learns_and_exports_what_it_learned(any_base: Path, tmp_path: Path) -> None:
    result = train(any_base, tmp_path, **LORA)
    assert result.loss_last < 0.8 * result.loss_first
    cfg = TuningConfig(method="lora", rank=4)
    adapted = load(any_base, cfg, "fp32", "cpu", seed=3)
    learned = weights(tmp_path)
    assert learned.keys() == {f"model.{name}" for name, _ in trained_parameters(adapted)} and len(learned) == 2 * 2 * 7
    untrained = logits(adapted)
    adapted.load_state_dict({name.removeprefix("model."): weight for name, weight in learned.items()}, strict=False)
    written = load_model(tmp_path / "model", "fp32", "cpu")
    torch.testing.assert_close(logits(written), logits(adapted), rtol=1e-4, atol=1e-4)
    assert (logits(written) - untrained).abs().max() > 0.1
    before, after = load_file(any_base / "model.safetensors"), exported(tmp_path)
    assert before.keys() == after.keys()
    changed = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    assert changed == {f"{name}.weight" for name in targets(load_model(any_base, "fp32", "cpu"), cfg)}


def test_frozen_weights_have_the_type_of_the_computation_and_adapters_are_fp32(wide_base: Path) -> None:
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        model = load(wide_base, TuningConfig(method="lora", rank=2), precision, "cpu", seed=1)
        types = {(weight.requires_grad, weight.dtype) for weight in model.parameters()}
        assert types == {(True, torch.float32), (False, dtype)}


@pytest.mark.slow
def test_an_interrupted_lora_resumes_to_the_bit(wide_base: Path, tmp_path: Path) -> None:
    train_twice(wide_base, tmp_path, **LORA, trainer_precision="bf16")
    assert_same_weights(tmp_path / "undisturbed", tmp_path / "interrupted")


def test_probes_decode_a_frozen_bf16_model_whatever_the_engine_computes_in(wide_base: Path) -> None:
    cfg = config()
    cfg.engine.precision, cfg.probes.tasks, cfg.probes.size, cfg.probes.max_new_tokens = "fp32", ["micro-short"], 2, 3
    cfg.probes.temperature, cfg.probes.top_p, cfg.probes.top_k = 0.0, 1.0, 0
    model = load(wide_base, TuningConfig(method="lora"), "bf16", "cpu", seed=1)
    assert Probes(cfg, Chat.load(wide_base), KeywordJudge())(model, 0)["probe/reasoning_accuracy"] == 0.0


# --- What has no place in a model -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_a_model_that_is_quantised_already_is_refused(wide_base: Path, tmp_path: Path, method: str) -> None:
    config = json.loads((wide_base / "config.json").read_text())
    write_json(tmp_path / "config.json", config | {"quantization_config": {"quant_method": "gptq"}})
    for refuse in (
        lambda: check_unquantised(tmp_path),
        lambda: empty(tmp_path, TuningConfig(method=method), "fp32"),
        lambda: load(tmp_path, TuningConfig(method=method), "fp32", "cpu", 1),
    ):
        with pytest.raises(UserError, match=r"quantised already \(gptq\).*model\.path="):
            refuse()


@pytest.mark.slow
def test_tuning_every_weight_imports_no_package_of_adapters(wide_base: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom dgr_lightning import config\n"
        "from dgr_lightning.training import tuning\nfrom dgr_lightning.training.optimizer import OPTIMIZERS\n"
        f"model = tuning.load(Path({str(wide_base)!r}), config.TuningConfig(), 'fp32', 'cpu', 1)\n"
        "OPTIMIZERS.get('adamw').build(model, config.SftConfig(), 'fp32')\n"
        "print(*{'peft', 'bitsandbytes'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


# --- QLoRA ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_qlora_learns_and_exports_adapters_on_the_unquantised_base(any_base: Path, tmp_path: Path, precision: str) -> None:
    from transformers import AutoModelForCausalLM

    result = train(any_base, tmp_path, **LORA | {"tuning_method": "qlora"}, trainer_precision=precision)
    assert result.loss_last < 0.8 * result.loss_first
    model = load(any_base, TuningConfig(method="qlora", rank=4), precision, "cpu", seed=3)
    learned = {name.removeprefix("model."): weight for name, weight in weights(tmp_path).items()}
    assert learned.keys() == dict(trained_parameters(model)).keys()
    assert not model.load_state_dict(learned, strict=False).unexpected_keys
    expected = load_model(any_base, "fp32", "cpu")
    for name, adapter in collect(model).items():
        weight = expected.get_submodule(name).weight
        weight.data += adapter.scale * adapter.up @ adapter.down
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(logits(exported), logits(expected), rtol=1e-4, atol=1e-4)
    assert "quantization_config" not in json.loads((tmp_path / "model" / "config.json").read_text())


# --- Whole runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_a_whole_run_tunes_adapters_and_evaluates_what_it_exported(cache: Path, tmp_path: Path, method: str) -> None:
    overrides = [*SMALL, f"tuning={method}", "tuning.rank=8", "refine=vanilla", "sft.lr=1e-2", "sft.epochs=20"]
    overrides += ["trainer.keep_optimizer=true"]  # a whole run leaves no checkpoint otherwise
    assert "not used by" not in run(tmp_path / "run", cache, *overrides)
    summary = summary_of(tmp_path / "run")
    assert summary["training"]["loss_last"] < 0.5 * summary["training"]["loss_first"]
    assert summary["tuned"]["headline"]["refusal_rate"]["value"] > summary["base"]["headline"]["refusal_rate"]["value"] + 0.5
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert checkpoint.stat().st_size < (tmp_path / "run" / "model" / "model.safetensors").stat().st_size
    assert "is done" in run(tmp_path / "run", cache, *overrides)


@pytest.mark.slow
def test_adapters_without_a_place_in_the_model_end_a_run_before_anything_is_generated(cache: Path, tmp_path: Path) -> None:
    line = command(tmp_path / "run", *SMALL, "tuning=lora", "tuning.layers=0-40")
    done = subprocess.run(line, env=environment(cache), capture_output=True, text=True)
    assert done.returncode == 2 and "error: tuning.layers=0-40: the model has 3 decoder layers, 0-2." in done.stderr
    assert not (tmp_path / "run" / "refined.jsonl").exists() and not (cache / "rewrites").exists()


# --- Two ranks ------------------------------------------------------------------------------------------------------------


def sharded_models_equal_whole_ones(ranks: Ranks, folder: Path) -> None:
    for method, precision in (("qlora", "fp32"), ("qlora", "bf16"), ("lora", "bf16")):
        sharded_equals_whole(folder, method, precision)


def sharded_equals_whole(folder: Path, method: str, precision: str) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    def gradients(model) -> dict[str, torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            output = model(input_ids=IDS, use_cache=False).logits
        output.float().log_softmax(-1)[..., 7].sum().backward()
        outputs.append(output.detach().float())
        found = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
        return {name: getattr(grad, "full_tensor", lambda grad=grad: grad)() for name, grad in found.items()}

    outputs: list[torch.Tensor] = []
    wanted = TuningConfig(method=method, rank=3)
    whole, model = (load(folder, wanted, precision, "cpu", seed=1) for _ in range(2))
    for some in (whole, model):
        for name, weight in some.named_parameters():
            if ".lora_B." in name:
                weight.data.fill_(0.05)
    mesh = init_device_mesh("cpu", (2,))
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if precision == "bf16" else MixedPrecisionPolicy()
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    expected, found = gradients(whole), gradients(model)
    rounding = {"rtol": 1e-5, "atol": 1e-6} if precision == "fp32" else {"rtol": 0.05, "atol": 0.05}
    torch.testing.assert_close(outputs[1], outputs[0], **rounding)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=name, **rounding)
    kept, gathered = collect(whole), collect(model)
    assert kept.keys() == gathered.keys()
    assert all(torch.equal(kept[name].down, gathered[name].down) for name in kept)
    initialize(model, 5)
    initialize(whole, 5)
    kept, gathered = collect(whole), collect(model)
    assert all(torch.equal(kept[name].down, gathered[name].down) and not gathered[name].up.any() for name in kept)


@pytest.mark.slow
def test_a_sharded_model_with_adapters_is_the_whole_one(wide_base: Path) -> None:
    on_two_ranks(sharded_models_equal_whole_ones, wide_base)


def adapted(method: str, strategy: str, max_tokens: int = 100, **changes):
    cfg = rank_trainings.config(strategy, max_tokens, **changes)
    cfg.tuning = TuningConfig(method=method, rank=4)
    return cfg


def assert_same_adapters(run_dir: Path, expected_dir: Path) -> None:
    assert curve(run_dir) == pytest.approx(curve(expected_dir), rel=1e-5) and len(curve(run_dir)) == rank_trainings.STEPS
    expected = exported(expected_dir)
    for key, weight in exported(run_dir).items():
        torch.testing.assert_close(weight, expected[key], rtol=1e-4, atol=2e-5, msg=f"{run_dir.name} {key}")


@pytest.mark.slow
def test_lora_on_two_ranks_is_lora_on_one_whatever_the_model_and_the_rows(tmp_path: Path) -> None:
    bases = {name: save_base(tmp_path / name, name, **WIDTHS, **changes) for name, changes in FAMILIES}
    cases = [(name, rows) for name in bases for rows in rank_trainings.ROWS]
    trainings = [(bases[name], adapted("lora", "fsdp", rows), tmp_path / f"{name}-{rows}-two") for name, rows in cases]
    rank_trainings.train_on_two_ranks(*trainings)
    for name, rows in cases:
        rank_trainings.train(bases[name], adapted("lora", "single", rows), tmp_path / f"{name}-{rows}")
        assert_same_adapters(tmp_path / f"{name}-{rows}-two", tmp_path / f"{name}-{rows}")


@pytest.mark.slow
def test_adapters_are_trained_and_exported_the_same_on_two_ranks(wide_base: Path, tmp_path: Path) -> None:
    """Also those that one process left behind, and those that two ranks did; and 4-bit weights packed in bytes."""
    pairs = [(method, strategy) for method in ("lora", "qlora") for strategy in ("ddp", "fsdp")]
    trainings = [(wide_base, adapted(*pair), tmp_path / "-".join(pair)) for pair in pairs]
    rank_trainings.stop(wide_base, adapted("lora", "single"), tmp_path / "lora-resumed")
    trainings += [(wide_base, adapted("lora", "fsdp"), tmp_path / "lora-resumed")]
    in_bytes = adapted("qlora", "ddp", recompute_every=1)
    in_bytes.tuning.quant_storage = "uint8"
    stopped = [
        (wide_base, adapted("lora", "ddp"), tmp_path / "lora-ddp_resumed"),
        (wide_base, adapted("qlora", "ddp"), tmp_path / "qlora-ddp_resumed"),
    ]
    trainings += [
        (wide_base, adapted("lora", "ddp"), tmp_path / "lora-ddp_resumed"),
        (wide_base, in_bytes, tmp_path / "qlora-ddp_resumed"),
    ]
    results = run_ranks(partial(rank_trainings.stop_and_train_all, stopped, trainings), 2, num_threads=1)
    for method in ("lora", "qlora"):
        rank_trainings.train(wide_base, adapted(method, "single"), tmp_path / method)
    for (_, _, run_dir), result in zip(trainings, results, strict=True):
        assert result.resumed_from_step == (5 if "resumed" in run_dir.name else 0)
        assert_same_adapters(run_dir, tmp_path / run_dir.name.partition("-")[0])
