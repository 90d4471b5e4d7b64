"""The miniature's source sets."""

from dgr_lightning.micro import sets


def test_source_sets_hold_enough_rows_of_both_kinds():
    for recipe in ("micro-directrefusal", "micro-r1act"):
        labels = [row["label"] for row in sets.source_rows(recipe)]
        assert labels.count("harmful") >= 300 and labels.count("benign") >= 200
