"""A bad override is one message that names it and what it takes, exit code 2, before torch is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from dgr_lightning.cli import entry, resolve
from dgr_lightning.cli.compose import compose
from dgr_lightning.cli.failures import BAD_CONFIG
from tests.helpers.messages import check_message
from tests.helpers.runs import ROOT

# Command line → what the message must hold. The first word of each is what the message must name.
BAD = {
    # keys that do not exist
    "foo=1": ["foo=1", "model", "sft"],
    "+foo=1": ["+foo=1", "no key 'foo'"],
    "++sft.foo=1": ["sft.foo", "lr, epochs"],
    "sft.lrr=1": ["sft.lrr", "sft.lr"],
    "sft.epoch=1": ["sft.epoch", "Did you mean sft.epochs"],
    "lr=1e-3": ["lr=1e-3", "Did you mean sft.lr"],
    "limit=3": ["data.limit", "evaluation.limit"],
    "modle=micro": ["modle", "Did you mean model"],
    "data.benign.pth=x": ["data.benign.pth", "data.benign.path"],
    "evaluation.path.a.b=x": ["evaluation.path.a.b"],
    "sft.lr.x=1": ["sft.lr.x", "sft.lr"],
    # choices that do not exist
    "model=micr": ["model=micr", "micro", "r1-distill-7b"],
    "model=null": ["model=null", "Choices"],
    "data=star2": ["data=star2", "star1", "safechain"],
    "refine=sdfd": ["refine=sdfd", "sdft", "vanilla"],
    "tuning=dora": ["tuning=dora", "full, lora, qlora"],
    "trainer=tpu": ["trainer=tpu", "auto, cpu, ddp, fsdp, fsdp-multinode, gpu"],
    "engine=vlm": ["engine=vlm", "transformers", "vllm"],
    "engine=server": ["engine=server", "engine.url="],
    "engine.url=http://127.0.0.1:1/v1": ["engine.url=http://127.0.0.1:1/v1", "engine=server"],
    "engine=transformers engine.tensor_parallel=2": ["engine.tensor_parallel", "engine=vllm"],
    "engine=transformers engine.replicas=2": ["engine.replicas", "engine=vllm"],
    "refine.parts=[prompt]": ["refine.parts=[prompt]", "[trace]"],
    "refine=thinksafe refine.on_failure=keep": ["refine.on_failure=keep", "thinksafe"],
    "shift.embedding=/not/there": ["shift.embedding=/not/there", "no such folder"],
    "shift.tuned=/not/there": ["shift.tuned=/not/there", "refine.py"],
    "engine.served_model=x": ["engine.served_model=x", "engine=server"],
    "evaluation=complete": ["evaluation=complete", "quick"],
    "judge=gpt": ["judge=gpt", "keywords"],
    "logger=mlflow": ["logger=mlflow", "wandb"],
    "experiment=mine": ["experiment=mine", "safety-tax"],
    "refine=[vanilla,dgr]": ["refine=[vanilla,dgr]", "-m"],
    # values of the wrong type
    "sft.lr=fast": ["sft.lr=fast", "a number above 0"],
    "sft.lr=null": ["sft.lr=null"],
    "sft.lr=": ["sft.lr=", "a number"],
    "sft.lr=nan": ["sft.lr=nan"],
    "sft.clip_norm=inf": ["sft.clip_norm=inf"],
    "sft.epochs=2.5": ["sft.epochs=2.5", "a whole number"],
    "sft.epochs=true": ["sft.epochs=true"],
    "seed=abc": ["seed=abc", "a whole number"],
    "overwrite=maybe": ["overwrite=maybe", "true or false"],
    "sft=5": ["sft=5", "sft.lr"],
    "sft={lr:fast}": ["sft.lr=fast"],
    "evaluation.path=3": ["evaluation.path=3", "mapping"],
    "evaluation.tasks=micro-short": ["evaluation.tasks=micro-short", "list"],
    "data.keep=[a]": ["data.keep", "mapping"],
    # values out of range
    "sft.lr=0": ["sft.lr=0", "above 0 and at most 1"],
    "sft.lr=-1e-3": ["sft.lr=-0.001"],
    "sft.lr=3": ["sft.lr=3", "at most 1"],
    "sft.epochs=0": ["sft.epochs=0", "at least 1"],
    "sft.batch_size=-2": ["sft.batch_size=-2"],
    "sft.optimizer=sgd": ["sft.optimizer=sgd", "adamw, adamw8bit"],
    "seed=-1": ["seed=-1", "at least 0"],
    "seed=4294967296": ["seed=4294967296", "2^32"],
    "data.limit=0": ["data.limit=0", "at least 1", "null"],
    "data.benign_ratio=1": ["data.benign_ratio=1", "0.95"],
    "refine.fraction=1.5": ["refine.fraction=1.5", "at most 1"],
    "refine.top_p=0": ["refine.top_p=0", "above 0"],
    "refine.temperature=-1": ["refine.temperature=-1"],
    "refine.on_failure=dorp": ["refine.on_failure=dorp", "keep, drop", "Did you mean drop"],
    "refine.strategy=sdfd": ["refine.strategy=sdfd", "one of dgr, filters-only", "Did you mean sdft?"],
    "engine.precision=fp16": ["engine.precision=fp16", "auto, bf16, fp32"],
    "trainer.accelerator=tpu": ["trainer.accelerator=tpu", "auto, cpu, cuda"],
    "model.chat_style=chatml": ["model.chat_style=chatml", "auto, think, think-text, s1, none, marks"],
    "refine.top_k=-1": ["refine.top_k=-1", "at least 0"],
    "evaluation.top_k=1.5": ["evaluation.top_k=1.5", "whole number"],
    "logger.name=tensorboard": ["logger.name=tensorboard", "wandb"],
    # impossible pairs
    "model.chat_style=marks": ["model.chat_style=marks", "model.think_marks="],
    'model.think_marks=["<a>","</a>"]': ["model.think_marks", "model.chat_style=auto", "model.chat_style=marks"],
    'model.chat_style=marks model.think_marks=["<a>","<a>"]': ["model.think_marks", "two different texts"],
    "data=star1": ["data=star1", "model=micro", "micro-directrefusal"],
    "model=r1-distill-7b": ["model=r1-distill-7b", "data=micro-directrefusal", "star1"],
    "experiment=safety-tax": ["data=directrefusal", "model=micro"],
    "evaluation=quick": ["evaluation=quick", "model=micro", "evaluation=micro"],
    "refine.tries=3 refine.temperature=0": ["refine.tries=3", "refine.temperature=0"],
    "evaluation.repetition_penalty=0": ["evaluation.repetition_penalty=0", "above 0"],
    "evaluation.by_kind=3": ["evaluation.by_kind=3", "a mapping {harmful: {temperature: 0}, …}"],
    "evaluation.by_kind.harmful=3": ["evaluation.by_kind", "a mapping {harmful: {temperature: 0}, …}"],
    "evaluation.by_kind.harmfull.temperature=1": ["evaluation.by_kind.harmfull", "Did you mean harmful?"],
    "evaluation.by_kind.harmful.temprature=1": ["evaluation.by_kind.harmful.temprature", "Did you mean temperature?"],
    "evaluation.by_task.micro-short.samples=3": ["evaluation.by_task.micro-short.samples=3", "evaluation.temperature=0"],
    "evaluation.thinking_tokens=160": ["evaluation.thinking_tokens=160", "nothing is left for an answer"],
    "evaluation.prompts.micro-short=Solve": ["evaluation.prompts.micro-short", "{question}"],
    "evaluation.attack=pair": ["evaluation.attack=pair", "gcg", "evaluation.attack_path="],
    "evaluation.attack_path=nowhere.txt": ["evaluation.attack_path=nowhere.txt", "no such file"],
    "evaluation.attack=gcg evaluation.tasks=[micro-short]": ["evaluation.attack=gcg", "nothing to attack"],
    "evaluation.prefill=zerothink model.chat_style=none": ["evaluation.prefill=zerothink", "model.chat_style=none"],
    "evaluation.samples=4": ["evaluation.samples=4", "evaluation.temperature=0"],
    "refine.fallback_unit=part refine.on_failure=drop": ["refine.fallback_unit=part", "refine.on_failure"],
    "data.fields.response=r": ["data.fields.trace", "data.fields.response"],
    "sft.betas=[0.9]": ["sft.betas=[0.9]", "two numbers", "sft.betas=[0.9,0.95]"],
    "sft.betas=[0.9,1]": ["sft.betas=[0.9, 1.0]", "below 1"],
    "sft.loss_mean=rows": ["sft.loss_mean=rows", "tokens, examples"],
    "data.fields.labels.bad=evil": ["data.fields.labels.bad=evil", "harmful, safe_completion, benign"],
    "refine.checks=[nonsense]": ["refine.checks", "nonsense", "overthinking"],
    "evaluation.tasks=[]": ["evaluation.tasks=[]"],
    "evaluation.tasks=[micro-short,micro-short]": ["evaluation.tasks", "twice"],
    "evaluation.tasks=[gsm9k]": ["gsm9k", "micro-short"],
    "evaluation.path.gsm8k=README.md": ["evaluation.path.gsm8k"],
    "probes.tasks=[nothing]": ["nothing", "micro-short"],
    "tuning=lora sft.optimizer=muon": ["sft.optimizer=muon", "tuning=lora", "sft.optimizer=adamw"],
    "tuning=qlora sft.optimizer=muon": ["sft.optimizer=muon", "tuning=qlora"],
    "tuning=lora tuning.rank=0": ["tuning.rank=0", "at least 1"],
    "tuning=lora tuning.target_modules=[]": ["tuning.target_modules=[]", "[all-linear]"],
    "tuning=lora tuning.target_modules=up_proj": ["tuning.target_modules=up_proj", "list"],
    "tuning=lora tuning.layers=middle": ["tuning.layers=middle", "16-31", "33%-67%"],
    "tuning=lora tuning.layers=5-2": ["tuning.layers=5-2", "both included"],
    "tuning=lora tuning.layers=50%-150%": ["tuning.layers=50%-150%", "per cent"],
    "tuning=qlora tuning.layers=40%-40%": ["tuning.layers=40%-40%", "per cent"],
    "tuning=qlora tuning.quant_storage=int4": ["tuning.quant_storage=int4", "bf16, fp32, uint8"],
    "trainer=cpu trainer.devices=2": ["trainer.devices=2", "trainer.strategy=single", "trainer=fsdp"],
    "trainer=ddp trainer.cpu_offload=true": ["trainer.cpu_offload", "trainer.strategy=ddp", "trainer=fsdp"],
    "trainer=fsdp trainer.accelerator=cpu trainer.cpu_offload=true": ["trainer.cpu_offload", "trainer.accelerator=cpu"],
    "trainer=cpu trainer.shard_size=2": ["trainer.shard_size", "trainer.strategy=single", "trainer=fsdp"],
    "trainer=ddp trainer.tensor_parallel=2": ["trainer.tensor_parallel", "trainer.strategy=ddp", "trainer=fsdp"],
    "trainer=fsdp trainer.devices=4 trainer.tensor_parallel=3": ["trainer.tensor_parallel=3", "4 devices"],
    "trainer=fsdp trainer.devices=4 trainer.tensor_parallel=2 tuning=lora": ["trainer.tensor_parallel=2", "tuning=full"],
    "trainer=fsdp trainer.accelerator=cuda trainer.devices=4 trainer.tensor_parallel=2 trainer.cpu_offload=true": [
        "trainer.cpu_offload",
        "trainer.tensor_parallel",
    ],
    "trainer=fsdp trainer.devices=4 trainer.tensor_parallel=2 trainer.compile=true": ["trainer.compile", "tensor_parallel"],
    "trainer=fsdp trainer.devices=4 trainer.shard_size=3": ["trainer.shard_size=3", "4 devices"],
    "trainer.nodes=2": ["trainer.nodes=2"],
    "trainer.device_name=h900": ["trainer.device_name=h900", "H100 SXM", "L40S"],
    "sft.select=probe/gsm8k/accuracy": [
        "sft.select=probe/gsm8k/accuracy",
        "probe/reasoning_accuracy",
        "probe/micro-short/accuracy",
    ],
    "sft.select=probe/reasoning_accuracy probes.every=0": ["sft.select=probe/reasoning_accuracy", "probes.every=0"],
    "trainer.max_restarts=-1": ["trainer.max_restarts=-1", "at least 0"],
    "model=local": ["model=local", "model.path=", "model.hub_id="],
    "data=local": ["data=local", "data.path="],
    # parts of a mixture
    "data.mix=3": ["data.mix=3", "in one list: data.mix="],
    "data.mix=[a]": ["data.mix", "a list [{data: star1, share: 0.8}"],
    "data.mix=null": ["data.mix=null"],
    "data=mix": ["data=mix", "data.mix=[{data: star1, share: 0.8}"],
    "data.mix=[{data:micro-r1act}]": ["data.mix[0]: share is missing", "share: 0.7"],
    "data.mix=[{share:1}]": ["data.mix[0]: data is missing", "data: star1"],
    "data.mix=[{data:micro-r1ac,share:1}]": ["data.mix[0].data=micro-r1ac", "Did you mean micro-r1act?", "safechain"],
    "data.mix=[{data:mix,share:1}]": ["data.mix[0].data=mix", "Choices: directrefusal"],
    "data.mix=[{data:micro-r1act,shar:1}]": ["data.mix[0].shar", "Did you mean share?", "label_list"],
    "data.mix=[{data:micro-r1act,share:1,limit:3}]": ["data.mix[0].limit", "A part has: data, share, kind"],
    "data.mix=[{data:micro-r1act,share:1,recipe:x}]": ["data.mix[0].recipe: no key of a part"],
    "data.mix=[{data:micro-r1act,share:1,fields:{promt:x}}]": ["data.mix[0].fields.promt", "Did you mean prompt?"],
    "data.mix=[{data:micro-r1act,share:1,fields:{labels:{a:b}}}]": ["data.mix[0].fields.labels.a=b", "retention"],
    "data.mix=[{data:micro-r1act,share:1,fields:{trace:t}}]": ["data.mix[0].fields.trace", "data.mix[0].fields.response"],
    "data.mix=[{data:micro-r1act,share:1.5}]": ["data.mix[0].share=1.5", "above 0 and at most 1"],
    "data.mix=[{data:micro-r1act,share:0}]": ["data.mix[0].share=0", "above 0"],
    "data.mix=[{data:micro-r1act,share:1,kind:evil}]": ["data.mix[0].kind=evil", "harmful, benign, retention"],
    "data.mix=[{data:micro-r1act,share:1,first:0}]": ["data.mix[0].first=0", "at least 1"],
    "data.mix=[{data:micro-r1act,share:.5},{data:micro-retention,share:.4}]": [
        "data.mix: the shares of its parts make 0.9, not 1 (micro-r1act 0.5, micro-retention 0.4)",
    ],
    "data.mix=[{data:local,share:1}]": ["data.mix[0] (data: local)", "path: <jsonl"],
    "data.mix=[{data:local,share:1,path:/not/there.jsonl}]": ["data.mix[0].path=/not/there.jsonl", "no such file"],
    "data.mix=[{data:star1,share:.5},{data:micro-r1act,share:.5}]": [
        "data.mix[1] (micro-r1act) is in the micro language",
        "natural",
    ],
    "data.mix=[{data:star1,share:1}]": ["data=mix with model=micro", "natural"],
    "data=star1 data.mix=[{data:star1,share:1}]": ["data.hub_id", "with data.mix", "leave it out", "data=star1"],
    "data.path=README.md data.mix=[{data:micro-r1act,share:1}]": ["data.path with data.mix", "{data: local, path: rows.jsonl"],
    "data.benign_ratio=.2 data.mix=[{data:micro-r1act,share:1}]": ["data.benign_ratio with data.mix", "kind: benign"],
    "data.first=3 data.keep.a=b data.mix=[{data:micro-r1act,share:1}]": ["data.first, data.keep with data.mix"],
    # paths that are not there
    "model.path=/not/there": ["model.path=/not/there", "no such folder"],
    "model.path=owner/model": ["model.path=owner/model", "model.hub_id=owner/model"],
    "model.path=/": ["model.path=/", "config.json"],
    "data.path=/not/there.jsonl": ["data.path=/not/there.jsonl", "no such file"],
    "refine.trace_template=/not/there": ["refine.trace_template=/not/there"],
    "refine.meta_thinking=/tmp": ["refine.meta_thinking=/tmp", "folder"],
    "judge.phrases=/not/there": ["judge.phrases=/not/there"],
    # names that cannot be a directory
    "name=a/b": ["name=a/b", "letters"],
    "name=../up": ["name=../up"],
    "name=.hidden": ["name=.hidden"],
    "name=": ["name="],
    # not an override at all
    "seed": ["seed", "key=value"],
    "name=(a": ["name=(a", "cannot be read"],
    "name=a=b": ["name=a=b", "cannot be read"],
    "~sft.lr": ["~sft.lr", "not deleted"],
    "data@other=star1": ["data@other=star1", "data="],
    "sft.lr=${nothing}": ["sft.lr", "nothing"],
    "sft.lr=${sft.lr}": ["sft.lr"],
    "sft.lr=1e-3,1e-4": ["sft.lr=1e-3,1e-4", "-m"],
    "evaluation.tasks=micro-short,micro-long": ["-m", "[micro-short,micro-long]"],
    "hydra.nothing=1": ["hydra.nothing"],
    "hydra.run.dir=": ["hydra.run.dir=", "one folder"],
    "hydra.sweep.dir=x": ["hydra.sweep.dir=x", "hydra.run.dir"],
    "-m seed=1,2 hydra.run.dir=x": ["hydra.run.dir=x", "hydra.sweep.dir"],
    "-m refine=vanilla,dgrr": ["dgrr", "Did you mean dgr"],
    "--epochs 3": ["--epochs", "key=value"],
    "--cfg nothing": ["--cfg", "job"],
    "--config-name other": ["--config-name"],
    "--config-dir /not/there": ["/not/there"],
}


def never(cfg, place):
    raise AssertionError("a bad config passed the checks")


@pytest.mark.parametrize("line", BAD, ids=lambda line: line)
def test_bad_override_is_one_message_and_exit_code_2(line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setattr(resolve, "resolve", never)
    assert entry.run(never, "train", line.split(" ")) == BAD_CONFIG
    check_message(capsys.readouterr().err, BAD[line])
    assert list(tmp_path.iterdir()) == []


def test_a_group_that_a_command_has_no_use_for(capsys):
    assert entry.run(never, "evaluate", ["data=star1"]) == BAD_CONFIG
    check_message(capsys.readouterr().err, ["data=star1", "evaluate.py", "evaluation"])


@pytest.mark.parametrize("arguments", [["+foo=1"], ["sft.lr=7"], ["-m", "seed=-1,-2"]], ids=" ".join)
def test_bad_override_in_a_real_process_imports_no_torch(arguments, tmp_path):
    script = str(ROOT / "train.py")
    code = f"import sys, runpy\nsys.path.insert(0, {str(ROOT)!r})\nsys.argv[0] = {script!r}\n"
    code += f"try:\n    runpy.run_path({script!r}, run_name='__main__')\n"
    code += "finally:\n    print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert done.stdout.strip().endswith("False False")
    assert "Traceback" not in done.stderr


def test_a_key_needs_no_plus_and_takes_one(run_script):
    for plus in ("", "+", "++"):
        _, [(cfg, _)] = run_script(f"{plus}sft.clip_norm=0.5", f"{plus}data.keep.kind=x")
        assert cfg.sft.clip_norm == 0.5 and cfg.data.keep == {"kind": "x"}


def test_null_drops_one_condition_of_a_mapping():
    assert compose("train", ["model=qwen3-0.6b", "data=safechain", "data.keep.label=null"]).data.keep == {"label": None}


def test_null_empties_a_mapping(run_script):
    assert compose("train", ["model=qwen3-0.6b", "data=safechain"]).data.keep == {"label": "vanilla_harmful"}
    assert compose("train", ["model=qwen3-0.6b", "data=safechain", "data.keep=null"]).data.keep == {}


def test_text_may_look_like_a_number(run_script):
    _, [(cfg, _)] = run_script("name=2024", "sft.max_steps=1e2")
    assert cfg.name == "2024" and cfg.sft.max_steps == 100


def test_run_dir_may_interpolate(run_script):
    _, [(_, place)] = run_script("hydra.run.dir=out/s${seed}", "seed=7")
    assert place.exact == Path("out/s7")


def test_a_sweep_over_models_of_two_kinds_asks_for_the_group(folder, tmp_path, capsys):
    grown = tmp_path / "grown"
    grown.mkdir()
    (grown / "config.json").write_text('{"model_type": "qwen3", "dgr_language": "micro"}')
    assert entry.run(never, "train", ["-m", f"model.path={folder},{grown}"]) == BAD_CONFIG
    check_message(capsys.readouterr().err, ["model.path=", "model= too"])
