"""The safety tax: what tuning lost, with intervals that use that both models were given the same problems."""

import re

import pytest

from dgr_lightning.evaluation.subjects import BASE, TUNED, outputs_folder
from dgr_lightning.evaluation.tax import tax
from tests.helpers.evaluations import good, run_evaluation


def test_tax_is_what_tuning_lost_paired_on_problems(chat, cfg, tmp_path):
    def tuned(prompt: str, sample: int) -> tuple[str, str]:
        return ("so </think> it", "stop") if "plus 4" in prompt else good(prompt, sample)

    base, _ = run_evaluation(good, chat, cfg, tmp_path, out_dir=outputs_folder(tmp_path / "e", BASE))
    after, _ = run_evaluation(tuned, chat, cfg, tmp_path, out_dir=outputs_folder(tmp_path / "e", TUNED), model_hash="tuned")
    lost = tax(tmp_path / "e", base, after)
    assert lost["points"].value == pytest.approx(20.0) and lost["relative_percent"].value == pytest.approx(20.0)
    assert lost["points"].low < 20 < lost["points"].high
    run_evaluation(good, chat, cfg, tmp_path, out_dir=outputs_folder(tmp_path / "e", TUNED))
    same = tax(tmp_path / "e", base, base)
    assert same["points"].value == same["relative_percent"].value == 0
    # That no problem was lost does not say that none ever is.
    assert same["points"].low < 0 < same["points"].high and same["relative_percent"].low < 0 < same["relative_percent"].high


def test_tax_of_perfectly_paired_outcomes_is_surer_than_that_of_independent_ones(chat, cfg, tmp_path):
    def half(prompt: str, sample: int) -> tuple[str, str]:
        return ("so </think> it", "stop") if re.search(r"is [01]", prompt) else good(prompt, sample)

    def other_half(prompt: str, sample: int) -> tuple[str, str]:
        return ("so </think> it", "stop") if re.search(r"is [23]", prompt) else good(prompt, sample)

    widths = []
    for name, script in (("same", half), ("other", other_half)):
        folder = tmp_path / name
        base, _ = run_evaluation(half, chat, cfg, folder, out_dir=outputs_folder(folder, BASE))
        tuned, _ = run_evaluation(script, chat, cfg, folder, out_dir=outputs_folder(folder, TUNED), model_hash="tuned")
        points = tax(folder, base, tuned)["points"]
        widths.append(points.high - points.low)
    assert widths[0] < 0.5 * widths[1]
