"""The objective of a sweep."""

import pytest

from dgr_lightning.pipeline.sweep_objective import objective

HEAD = "trainer/global_step,probe/reasoning_accuracy,probe/refusal_rate,train/loss\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEAD + "0,0.9,0.1,\n1,,,2.5\n2,0.6,0.75,2.0\n", (30.0, 0.25)),
        ("trainer/global_step,probe/refusal_rate\n0,0.1\n2,1.0\n", 0.0),
        ("trainer/global_step,train/loss\n1,2.5\n", None),
        (None, None),
    ],
    ids=["both", "one kind", "no probes", "no file"],
)
def test_it_is_the_tax_and_what_is_not_refused_on_the_probe_split(tmp_path, text, expected):
    path = tmp_path / "metrics.csv"
    if text is not None:
        path.write_text(text)
    found = objective(path)
    assert found == (expected if expected is None else pytest.approx(expected))
