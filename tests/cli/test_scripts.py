"""The three scripts: their version, and what they do on a system without fcntl and resource."""

import json
import subprocess
import sys

import pytest

import dgr_lightning
from tests.helpers.runs import ROOT, environment

# Windows has none of these. What a script needs besides was not tried there.
WITHOUT = """
import os, runpy, signal, sys
sys.modules["fcntl"] = sys.modules["resource"] = None
del signal.SIGALRM, signal.setitimer, os.sched_getaffinity
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def without(folder, script, *arguments):
    command = [sys.executable, "-c", WITHOUT, str(ROOT / script), *arguments]
    return subprocess.run(command, cwd=folder, env=environment(folder / "cache"), capture_output=True, text=True, check=False)


@pytest.mark.parametrize("script", ["train.py", "refine.py", "evaluate.py", "compare.py"])
def test_version_is_the_projects_and_composes_nothing(script, tmp_path):
    command = [sys.executable, "-X", "importtime", str(ROOT / script), "--version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"dgr-lightning {dgr_lightning.__version__}\n"
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "transformers", "hydra.main", "importlib.metadata"}


def test_help_version_and_config_need_neither_fcntl_nor_resource(tmp_path):
    assert without(tmp_path, "train.py", "--version").stdout.startswith("dgr-lightning ")
    for script, flags, shown in (("refine.py", ["--help"], "refine.tries="), ("train.py", ["--cfg", "job"], "  lr: ")):
        done = without(tmp_path, script, *flags)
        assert done.returncode == 0 and shown in done.stdout, done.stderr


@pytest.mark.parametrize("script", ["train.py", "refine.py", "evaluate.py"])
def test_a_run_without_file_locks_ends_in_one_sentence(tmp_path, script):
    done = without(tmp_path, script)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: Windows has no file locks of the kind that a run needs (fcntl): run this inside WSL.")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_plan_needs_neither_fcntl_nor_resource(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "explain how to draw a cat .", "trace": "safe .", "answer": "sure !"}) + "\n")
    done = without(tmp_path, "train.py", "plan=true", "model=micro", "data=local", f"data.path={rows}")
    assert done.returncode == 0 and "the set can be trained on as it is" in done.stdout, done.stdout + done.stderr
