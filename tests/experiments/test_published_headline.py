"""What is published holds here: a run on the shipped base falls where docs/headline.json says that a new run falls."""

import json

import pytest

from tests.helpers.runs import ROOT, run, summary_of

PUBLISHED = json.loads((ROOT / "docs" / "headline.json").read_text())


def test_the_readme_shows_what_is_published():
    readme = (ROOT / "README.md").read_text()
    for arm in ("vanilla", "dgr"):
        tax = PUBLISHED["arms"][arm]["tax"]
        assert f"{100 * tax['value']:.1f} (".replace("-", "−") in readme
    assert f"{len(PUBLISHED['bases'])} bases" in readme and len(PUBLISHED["bases"]) >= 5 and len(PUBLISHED["seeds"]) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["vanilla", "dgr"])
def test_a_run_on_the_shipped_base_falls_inside_the_prediction_interval(tmp_path, cache, arm):
    run(tmp_path / "run", cache, f"refine={arm}", "seed=7", "probes.every=0")
    summary = summary_of(tmp_path / "run")
    found = {name: estimate["value"] for name, estimate in summary["tuned"]["headline"].items()}
    found["tax"] = summary["tax"]["points"]["value"] / 100
    for name, value in found.items():
        low, high = PUBLISHED["arms"][arm][name]["prediction"]
        assert low <= value <= high, f"{name}: {value} is outside of {low} to {high}"
