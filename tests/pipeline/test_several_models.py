"""Several models by one command, in real processes: nothing is generated twice, whatever was killed or measured before."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dgr_lightning.micro.build import SHIPPED
from tests.helpers.runs import ROOT, environment
from tests.helpers.served_model import serve

pytestmark = pytest.mark.slow

LIMIT = "evaluation.limit=12"
SMALL = ["data.limit=32", "sft.max_steps=4", "probes.every=0", "trainer.precision=fp32", "engine.precision=fp32"]
TASKS = ["micro-short", "micro-medium", "micro-long", "micro-harmful", "micro-benign"]


def command(script: str, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / script), *arguments]


def run(place: Path, script: str, *arguments: str) -> str:
    done = subprocess.run(
        command(script, *arguments), cwd=place, env=environment(place / "cache"), capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def stored(place: Path) -> list[tuple[str, str]]:
    """The completions of evaluations that are on disk, wherever they are stored: (shard, key)."""
    shards = [*place.glob("cache/evaluations/**/*.jsonl"), *place.glob("runs/**/evaluation/stored/**/*.jsonl")]
    found = []
    for shard in shards:
        for line in shard.read_text().splitlines()[1:]:
            if line.endswith("}"):
                found.append((str(shard.relative_to(place)), json.loads(line)["key"]))
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, list[Path]]:
    """A folder with two finished trainings of the miniature, vanilla and DGR."""
    place = tmp_path_factory.mktemp("trained")
    run(place, "train.py", "-m", "refine=vanilla,dgr", "name=arms", LIMIT, *SMALL)
    runs = sorted(path.parent for path in place.glob("runs/arms/*/summary.json"))
    assert len(runs) == 2
    return place, [path.relative_to(place) for path in runs]


def test_two_tuned_runs_are_compared_by_one_command_from_the_outputs_that_they_brought(trained):
    place, runs = trained
    before = stored(place)
    shown = run(place, "evaluate.py", f"models=[{runs[0]},{runs[1]}]", "name=both", LIMIT, "engine.precision=fp32")
    assert shown.count("its outputs are taken") == 2 and "completions generated" not in shown
    assert stored(place) == before and not list(place.glob("runs/both/evaluate-*"))
    (out,) = place.glob("runs/both/compare-*")
    assert (out / "comparison.html").is_file()
    pairs = json.loads((out / "comparison.json").read_text())["pairs"]
    assert {(pair["a"], pair["b"]) for pair in pairs} == {(str(runs[0]), str(runs[1]))}
    assert {pair["task"] for pair in pairs} == {"headline", *TASKS}
    assert "comparison.html" in run(place, "compare.py", str(runs[0]), str(runs[1]), "out=again")
    assert (place / "again" / "comparison.json").read_bytes() == (out / "comparison.json").read_bytes()


def test_more_problems_cost_what_is_new_alone(trained):
    place, runs = trained
    before = stored(place)
    shown = run(
        place, "evaluate.py", f"models=[{runs[0]}/model,{runs[1]}]", "name=more", "evaluation.limit=14", "engine.precision=fp32"
    )
    after = stored(place)
    assert set(before) < set(after) and len(after) == len(set(after)) == len(before) + 2 * 2 * len(TASKS)
    assert len(list(place.glob("runs/more/evaluate-*/summary.json"))) == 2
    assert shown.count("20 completions generated") == 0 and shown.count("10 completions generated") == 2


def test_a_killed_evaluation_of_several_models_goes_on_and_generates_nothing_that_is_on_disk(tmp_path):
    for name in ("first", "second"):
        shutil.copytree(SHIPPED, tmp_path / name)
    config = json.loads((tmp_path / "second" / "generation_config.json").read_text())
    (tmp_path / "second" / "generation_config.json").write_text(
        json.dumps(config | {"dgr": 1})
    )  # another content, another model
    asked = ["models=[first,second]", "name=killed", "evaluation.limit=30", "engine.batch_size=2", "engine.precision=fp32"]
    process = subprocess.Popen(
        command("evaluate.py", *asked),
        cwd=tmp_path,
        env=environment(tmp_path / "cache"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    whole = 30 * len(TASKS)
    deadline = time.monotonic() + 600
    while len(stored(tmp_path)) < whole + 20:  # in the middle of the second model
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = stored(tmp_path)
    assert whole < len(before) < 2 * whole, "it was killed in the middle of the second model"
    shown = run(tmp_path, "evaluate.py", *asked)
    after = stored(tmp_path)
    assert len(after) == len(set(after)) == 2 * whole and set(before) <= set(after)
    assert "is done; overwrite=true starts it from the beginning" in shown  # the first model
    assert f"{2 * whole - len(before):,} completions generated" in shown
    assert list(tmp_path.glob("runs/killed/compare-*/comparison.json"))


def test_an_adapter_is_measured_on_its_base_beside_the_base(tmp_path):
    import torch
    from peft import LoraConfig, get_peft_model

    from dgr_lightning.models.weights import load_model

    torch.manual_seed(0)
    shape = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(load_model(SHIPPED, "fp32", "cpu"), shape).save_pretrained(tmp_path / "adapter")
    asked = ["models=[micro,adapter]", "name=adapter", "evaluation.limit=4", f"model.base={SHIPPED}"]
    shown = run(tmp_path, "evaluate.py", *asked)
    assert "to its base, once" in shown and len(list(tmp_path.glob("cache/merged/*/dgr_merged.json"))) == 1
    again = run(tmp_path, "evaluate.py", *asked)
    assert "to its base, once" not in again and "completions generated" not in again


def test_a_server_is_measured_with_config_and_tokenizer_alone_and_as_the_folder_that_it_serves(tmp_path):
    tokenizer = tmp_path / "tokenizer"
    shutil.copytree(SHIPPED, tokenizer, ignore=shutil.ignore_patterns("*.safetensors", "origin.json"))
    few = ["evaluation.limit=4", "engine.precision=fp32", "name=served"]
    with serve(SHIPPED) as (url, bodies):
        asked = ["engine=server", f"engine.url={url}", f"model.path={tokenizer}", *few]
        run(tmp_path, "evaluate.py", *asked)
        assert len(bodies) == 4 * len(TASKS)
        run(tmp_path, "evaluate.py", *asked)
        assert len(bodies) == 4 * len(TASKS), "asked again for what is stored"
    (served,) = tmp_path.glob("runs/served/evaluate-*")
    run(tmp_path, "evaluate.py", "model=micro", "engine=transformers", *few)
    (here,) = (path for path in tmp_path.glob("runs/served/evaluate-*") if path != served)
    for task in TASKS:
        outputs = [
            [json.loads(line)["output"] for line in (place / "evaluation" / "base" / f"{task}.jsonl").read_text().splitlines()]
            for place in (served, here)
        ]
        assert outputs[0] == outputs[1]
    shown = run(tmp_path, "compare.py", str(served), str(here), "out=both")
    assert "not measured alike: engine.name is server and transformers" in " ".join(shown.split())
