"""The help page and Hydra's own flags."""

import re
import subprocess
import sys
from io import StringIO

import pytest
from rich.console import Console

from dgr_lightning.cli.help import show_help
from dgr_lightning.config.schema import keys
from tests.helpers.runs import ROOT


def test_help_names_every_key_and_choice_and_is_quick():
    done = subprocess.run([sys.executable, "train.py", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert all(f"{key}=" in done.stdout for key in keys())
    for word in ("r1-distill-70b", "safechain", "vanilla", "safety-tax", "--cfg job"):
        assert word in done.stdout


@pytest.mark.parametrize("command", ["train", "refine", "evaluate"])
@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_key_is_broken_and_no_line_is_wider_than_the_terminal_but_for_one(command, width):
    console = Console(file=StringIO(), width=width, highlight=False)
    show_help(command, console)
    lines = console.file.getvalue().splitlines()
    entries = {word for line in lines if re.match(r"  \S", line) for word in line.split()[:1]}
    for key in keys():
        if key.partition(".")[0] in {line.split("=")[0].split(".")[0] for line in entries}:
            assert any(entry.startswith(f"{key}=") for entry in entries), key
    # Longer than the terminal is what cannot be broken: an example, a single word, the folder of the YAML.
    too_long = [line for line in lines if len(line) > width]
    assert all(re.match(r"  python | +\S+$|Config files", line) for line in too_long), too_long
    assert not any(line != line.rstrip() for line in lines)


def test_the_sentence_of_a_long_entry_stands_below_it():
    console = Console(file=StringIO(), width=80, highlight=False)
    show_help("train", console)
    lines = console.file.getvalue().splitlines()
    (index,) = (index for index, line in enumerate(lines) if line.startswith("  data.fields.default_label="))
    assert lines[index].strip() == "data.fields.default_label=harmful" and lines[index + 1].startswith(" " * 32 + "l")
    assert any(line.startswith("  seed=1 ") and "draws the subset" in line for line in lines)


@pytest.mark.parametrize("flags", [["--cfg", "job"], ["--info", "defaults"]], ids=" ".join)
def test_hydra_flags_show_the_config_and_run_nothing(flags, tmp_path):
    command = [sys.executable, str(ROOT / "train.py"), *flags, "sft.lr=2e-4", "model.seed=3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "lr: 0.0002" in done.stdout or "model/micro" in done.stdout
    assert list(tmp_path.iterdir()) == []
