"""How torch's threads wait: set before torch is loaded, never against the user's choice."""

import os
import subprocess
import sys

import pytest

from dgr_lightning.threads import usable_cores
from tests.helpers.runs import ROOT

PRINT = "import os, dgr_lightning; print(*(os.environ.get(name) for name in ('GOMP_SPINCOUNT', 'KMP_BLOCKTIME')))"


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, ["1000", "1"]),
        ({"GOMP_SPINCOUNT": "infinity"}, ["infinity", "None"]),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ["None", "None"]),
        ({"KMP_BLOCKTIME": "200"}, ["None", "200"]),
    ],
    ids=lambda value: ",".join(value) or "nothing",
)
def test_a_short_spin_unless_the_user_chose_another(chosen, expected):
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    environment = {name: value for name, value in os.environ.items() if name not in names} | chosen
    done = subprocess.run([sys.executable, "-c", PRINT], env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == expected


def test_the_package_is_imported_before_torch_in_every_entry_point():
    for script in ("train.py", "refine.py", "evaluate.py"):
        program = f"import runpy; runpy.run_path({script!r}); import sys; print('torch' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["False"], script


def test_the_usable_cores_are_those_of_the_process_or_all_where_the_system_does_not_say(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5, 7})
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert usable_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cores() == 8
