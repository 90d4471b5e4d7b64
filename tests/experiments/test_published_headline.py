"""What is published holds here: a run on the shipped base falls where docs/headline.json says that a new run falls."""

import json
import subprocess
import sys

import pytest
import yaml

from tests.helpers.runs import ROOT, environment, summary_of

PUBLISHED = json.loads((ROOT / "docs" / "headline.json").read_text())


def test_the_readme_shows_what_is_published():
    readme = (ROOT / "README.md").read_text()
    for arm in ("vanilla", "dgr"):
        tax = PUBLISHED["arms"][arm]["tax"]
        assert f"{100 * tax['value']:.1f} (".replace("-", "−") in readme
    assert f"{len(PUBLISHED['bases'])} bases" in readme and len(PUBLISHED["bases"]) >= 5 and len(PUBLISHED["seeds"]) >= 2


@pytest.mark.slow
def test_runs_on_the_shipped_base_fall_inside_the_prediction_intervals(tmp_path, cache):
    arguments = ["-m", "refine=vanilla,dgr", "seed=7", "probes.every=0", f"hydra.sweep.dir={tmp_path}"]
    swept = [sys.executable, str(ROOT / "train.py"), *arguments]
    done = subprocess.run(swept, env=environment(cache), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    summaries = {file.parent: summary_of(file.parent) for file in tmp_path.rglob("summary.json")}
    assert len(summaries) == 2
    for run_dir, summary in summaries.items():
        arm = yaml.safe_load((run_dir / "config.yaml").read_text())["refine"]["name"]
        found = {name: estimate["value"] for name, estimate in summary["tuned"]["headline"].items()}
        found["tax"] = summary["tax"]["points"]["value"] / 100
        for name, value in found.items():
            low, high = PUBLISHED["arms"][arm][name]["prediction"]
            assert low <= value <= high, f"{arm}: {name}: {value} is outside of {low} to {high}"
