"""Every benchmark can be started as a file and as a module."""

import subprocess
import sys

import pytest

from tests.helpers.runs import ROOT

SCRIPTS = sorted(path.stem for path in (ROOT / "benchmarks").glob("[!_]*.py"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_the_same_by_path_and_by_module(script: str) -> None:
    outputs = []
    for arguments in ([f"benchmarks/{script}.py"], ["-m", f"benchmarks.{script}"]):
        done = subprocess.run(
            [sys.executable, *arguments, "--help"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1] and f"usage: {script}.py" in outputs[0]
