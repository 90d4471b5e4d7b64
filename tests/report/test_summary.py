import json
import math
from copy import deepcopy

import pytest

from dgr_lightning.evaluation.differences import Differences
from dgr_lightning.report.summary import build_summary, check_summary
from dgr_lightning.statistics.intervals import Estimate
from tests.helpers.finished_run import KL, REFINEMENT, SHIFT, SIMILAR, TRAINING, UNDEFINED, UNMEASURED, estimates, make_summary


def test_a_summary_says_under_which_attack_a_task_was_measured():
    asked = {"strongreject": {"attack": "gcg", "prefill": "zerothink"}}
    assert build_summary("h", {}, evaluation=asked)["evaluation"] == asked
    assert "evaluation" not in build_summary("h", {}, evaluation={})
    with pytest.raises(ValueError, match=r"evaluation\.strongreject: .*unknown keys \['style'\]"):
        build_summary("h", {}, evaluation={"strongreject": {"style": "x"}})


def test_summary_has_the_keys_of_schema_1_and_survives_json():
    summary = json.loads(json.dumps(make_summary(), allow_nan=False))
    assert set(summary) == {
        "schema", "config_hash", "versions", "data", "base", "tuned", "tax", "refinement", "shift", "training", "wall_seconds"
    }  # fmt: skip
    assert summary["schema"] == 1
    assert set(summary["base"]["headline"]) == {"reasoning_accuracy", "refusal_rate", "over_refusal_rate"}
    assert set(summary["tuned"]["tasks"]["gsm8k"]) == {"accuracy", "cap_hit_rate", "missing_thinking_rate", "early_stop_rate"}
    assert set(summary["tax"]["points"]) == {"value", "low", "high", "n"}
    assert summary["data"] == {"rejected": {"no answer": 3}}
    assert summary["base"]["headline"]["reasoning_accuracy"]["value"] == pytest.approx(0.98)
    check_summary(summary)


def test_the_source_set_is_counted_by_label_and_by_source():
    counts = {"rejected": {}, "labels": {"harmful": 3, "retention": 1}, "sources": {"star1": 3, "maths": 1}}
    summary = make_summary(refinement=REFINEMENT, **counts)
    assert summary["data"] == counts
    summary["data"]["sources"]["maths"] = 0.5
    with pytest.raises(ValueError, match=r"data\.sources\.maths"):
        check_summary(summary)


def test_parts_that_do_not_apply_are_left_out():
    assert set(make_summary(refinement=REFINEMENT)) == {"schema", "config_hash", "versions", "refinement", "wall_seconds"}
    assert set(make_summary(base=estimates(1.0, 0.0))) == {"schema", "config_hash", "versions", "base", "wall_seconds"}


def test_warnings_are_there_only_where_there_are_any():
    warned = make_summary(refinement=REFINEMENT, warnings=["most rewrites fell back"])
    assert warned["warnings"] == ["most rewrites fell back"]
    assert "warnings" not in make_summary(refinement=REFINEMENT, warnings=[])
    with pytest.raises(ValueError, match="warnings: 1 is not a sentence"):
        check_summary(warned | {"warnings": [1]})


def test_a_skipped_task_leaves_its_kind_without_a_headline_and_the_run_without_a_tax():
    summary = make_summary(skipped={"gpqa": "reasoning", "aime24": "reasoning"})
    assert summary["skipped"] == {"gpqa": "reasoning", "aime24": "reasoning"}
    assert summary["warnings"] == [
        "not measured, because the data could not be read: gpqa, aime24. So there is no average of the reasoning tasks."
    ]
    for side in ("base", "tuned"):
        assert summary[side]["headline"]["reasoning_accuracy"]["value"] is None
        assert summary[side]["headline"]["refusal_rate"]["value"] is not None
        assert summary[side]["tasks"]["gsm8k"]["accuracy"]["value"] is not None
    assert summary["tax"]["points"]["value"] is None and summary["tax"]["relative_percent"]["value"] is None
    harmful = make_summary(skipped={"harmbench": "harmful"})
    assert harmful["base"]["headline"]["refusal_rate"]["value"] is None and harmful["tax"]["points"]["value"] is not None
    with pytest.raises(ValueError, match=r"skipped\.gpqa: 'rude' is no kind of task"):
        check_summary(summary | {"skipped": {"gpqa": "rude"}})


def test_what_is_undefined_is_null():
    measures = {"gsm8k": {"accuracy": UNDEFINED}}
    summary = make_summary(base=measures, training=TRAINING | {"loss_first": math.nan, "tokens_per_second": math.inf})
    assert summary["base"]["tasks"]["gsm8k"]["accuracy"] == {"value": None, "low": None, "high": None, "n": 0}
    assert summary["base"]["headline"]["refusal_rate"]["value"] is None
    assert summary["training"]["loss_first"] is None and summary["training"]["tokens_per_second"] is None
    assert "NaN" not in json.dumps(summary)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("schema",), 2),
        (("extra",), 1),
        (("base", "headline", "refusal_rate"), None),
        (("base", "headline", "refusal_rate", "value"), math.nan),
        (("base", "headline", "refusal_rate", "high"), 0.01),
        (("base", "tasks", "gsm8k", "accuracy", "high"), 1.2),
        (("base", "tasks", "gsm8k", "pass_at_1"), {"value": 1, "low": 1, "high": 1, "n": 1}),
        (("tax", "euros"), {"value": 1, "low": 1, "high": 1, "n": 1}),
        (("refinement", "fallback", "meta_thinking"), 0.5),
        (("shift", "cosine"), None),
        (("shift", "before", "answer", "nll", "low"), 9.9),
        (("shift", "after", "both", "perplexity"), None),
        (("shift", "similarity", "outputs"), 0.5),
        (("shift", "kl", "all"), {"kl": KL}),
        (("shift", "kl", "other"), None),
        (("training", "steps"), "20"),
        (("wall_seconds", "train"), math.inf),
    ],
)
def test_check_names_the_place_of_what_is_wrong(place, value):
    summary = make_summary()
    part = summary
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    with pytest.raises(ValueError, match=place[-1]):
        check_summary(summary)


def test_the_shift_is_in_a_summary_without_its_distributions_and_null_where_it_was_not_measured():
    shift = json.loads(json.dumps(make_summary(refinement=REFINEMENT, shift=SHIFT)))["shift"]
    assert shift["before"]["trace"] == {key: SHIFT["before"]["trace"][key] for key in ("nll", "perplexity")}
    assert shift["similarity"] == {"rewrites": SIMILAR["cosine"], "outputs": None}
    assert shift["kl"] == {kind: {"kl": KL, "k3": KL} for kind in ("all", "reasoning")}
    shift = make_summary(refinement=REFINEMENT, shift=UNMEASURED)["shift"]
    assert shift["after"]["trace"] is shift["similarity"] is shift["kl"] is None


def test_a_missing_key_is_refused():
    summary = make_summary()
    del summary["refinement"]["nll_after"]
    with pytest.raises(ValueError, match="nll_after"):
        check_summary(summary)


def test_differences_lie_between_minus_one_and_one_and_tokens_anywhere():
    changes = Differences(
        {"refusal_rate": Estimate(-0.5, -0.9, 0.1, 50)},
        {"gsm8k": {"accuracy": Estimate(-0.2, -0.3, -0.1, 50), "mean_tokens": Estimate(-900.0, -1000.0, -800.0, 50)}},
    )
    base = estimates(0.98, 0.1)
    base["gsm8k"] |= {"mean_tokens": Estimate(1200.0, 1100.0, 1300.0, 50), "pass@4": Estimate(1.0, 0.9, 1.0, 50)}
    summary = make_summary(base=base, tuned=base, differences=changes)
    assert summary["differences"]["tasks"]["gsm8k"]["mean_tokens"]["value"] == -900.0
    check_summary(summary)
    for part, metric in (("differences", "accuracy"), ("base", "pass@4")):
        wrong = deepcopy(summary)
        wrong[part]["tasks"]["gsm8k"][metric]["low"] = -1.5
        with pytest.raises(ValueError, match=rf"{part}.tasks.gsm8k.{metric}"):
            check_summary(wrong)
    summary["differences"]["tasks"]["gsm8k"]["pass@k"] = summary["differences"]["tasks"]["gsm8k"]["accuracy"]
    with pytest.raises(ValueError, match="unknown keys"):
        check_summary(summary)
