"""What a run with `logger=wandb` leaves for W&B: results by their names, and nothing that should not leave the machine."""

import getpass
import json
import os
import platform
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.helpers.runs import ROOT, command, environment, summary_of
from tests.helpers.wandb_files import figures, records, texts

SHORT = ["data.limit=8", "sft.max_steps=2", "evaluation.limit=2", "evaluation.max_new_tokens=8", "probes.every=2"]
SHORT += ["probes.size=2", "probes.max_new_tokens=8", "shift.limit=4", "trainer.precision=fp32", "engine.precision=fp32"]
KEYS = {
    "WANDB_API_KEY": "c0ffee" * 6 + "c0ff",
    "HF_TOKEN": "hf_canaryhubtoken0123456789",
    "OPENAI_API_KEY": "sk-canaryserverkey0123456",
}
OTHER_HOST = "import platform, socket\nsocket.gethostname = platform.node = lambda: 'canary-host.example'\n"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, micro_folder) -> Path:
    """A folder called after a canary with everything that the run was given by path in it, and the run itself, `run`."""
    folder = tmp_path_factory.mktemp("canary-folder")
    shutil.copytree(micro_folder, folder / "canary-model")
    rows = [{part: f"canary {part} {n} please" for part in ("id", "prompt", "trace", "answer")} for n in range(10)]
    (folder / "canary-rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "canary-phrases.txt").write_text("canary phrase\n")
    (folder / "canary-template.jinja").write_text("canary template {{ question }} {{ answer }}")
    (folder / "sitecustomize.py").write_text(OTHER_HOST)
    given = [
        f"model.path={folder}/canary-model",
        f"data.path={folder}/canary-rows.jsonl",
        f"judge.phrases={folder}/canary-phrases.txt",
    ]
    given += [f"refine.answer_template={folder}/canary-template.jinja", "model.system_prompt='canary system prompt'"]
    given += ["refine=vanilla", "logger=wandb", "logger.entity=canary-team"]
    env = environment(folder / "canary-cache") | KEYS
    env |= {"WANDB_MODE": "offline", "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    done = subprocess.run(
        command(folder / "run", *SHORT, *given), env=env, cwd=folder, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for key in KEYS.values():
        assert key not in done.stdout + done.stderr
    return folder


def logs(finished: Path) -> list[Path]:
    return sorted((finished / "run" / "wandb").glob("offline-run-*/*.wandb"))


@pytest.mark.slow
def test_curves_and_results_are_there_by_their_names(finished):
    told = [record for log in logs(finished) for record in records(log)]
    assert {"train/loss", "train/tokens_per_second", "probe/reasoning_accuracy", "probe/refusal_rate"} <= figures(
        told, "history"
    ).keys()
    shown, summary = figures(told, "summary"), summary_of(finished / "run")
    for subject in ("base", "tuned"):
        for name, estimate in summary[subject]["headline"].items():
            assert shown[f"{subject}/{name}"] == estimate["value"] and shown[f"{subject}/{name}_low"] == estimate["low"]
        for task, metrics in summary[subject]["tasks"].items():
            known = {name: estimate["value"] for name, estimate in metrics.items() if estimate["value"] is not None}
            assert all(shown[f"{subject}/{task}/{name}"] == value for name, value in known.items())
    assert shown["tax/points"] == summary["tax"]["points"]["value"]
    assert shown["refinement/examples"] == 8


@pytest.mark.slow
def test_no_file_for_wandb_holds_a_path_an_address_a_source_text_a_host_a_person_or_a_key(finished):
    files = [path for path in (finished / "run" / "wandb").rglob("*") if path.is_file()]
    tables = [path for path in files if path.name.endswith(".table.json")]
    assert {path.suffix for path in files if path not in tables} == {".wandb"}, "W&B's own logs are not there"
    assert len(tables) == 4, "no table of harmful requests"
    written = [json.loads(line) for line in (finished / "run" / "refined.jsonl").read_text().splitlines()]
    outputs = [
        json.loads(line)
        for file in (finished / "run" / "evaluation").rglob("*harmful.jsonl")
        for line in file.read_text().splitlines()
    ]
    secrets = {*KEYS.values(), "canary", str(ROOT), str(Path.home()), str(finished), "/home/", "/tmp"}
    secrets |= {row[part] for row in written for part in ("prompt", "trace", "answer")}
    secrets |= {row[part] for row in outputs for part in ("prompt", "output") if len(row.get(part, "")) > 8}
    hosts = {socket.gethostname(), platform.node(), getpass.getuser()}
    for log in logs(finished):
        data, told = log.read_bytes(), records(log)
        # The team is where the run is sent to: its own field of the record, and nowhere else.
        run = next(record["run"] for record in told if "run" in record)
        assert run.pop("entity", None) in (None, "canary-team") and "host" not in run
        shown = "\n".join(text for record in told for text in texts(record))
        found = [secret for secret in secrets if secret in shown]
        found += [secret for secret in secrets if len(secret) > 3 and secret.encode() in data.replace(b"canary-team", b"")]
        assert found == []
        for host in filter(None, hosts):
            assert not re.search(rf"(?<![A-Za-z0-9]){re.escape(host)}(?![A-Za-z0-9])", shown)
    assert [secret for secret in secrets for table in tables if secret in table.read_text()] == []
