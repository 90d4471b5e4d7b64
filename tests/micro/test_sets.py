"""The miniature's source sets."""

from itertools import islice

from dgr_lightning.hashes import content_hash
from dgr_lightning.micro import corpus, sets
from dgr_lightning.micro.arithmetic import STEPS


def test_source_sets_hold_enough_rows_of_both_kinds():
    for recipe in ("micro-directrefusal", "micro-r1act"):
        labels = [row["label"] for row in sets.source_rows(recipe)]
        assert labels.count("harmful") >= 300 and labels.count("benign") >= 200


def test_source_sets_stay_as_they_are():
    """A change here is another content under the same name: make it on purpose, with a new VERSION."""
    hashes = {name: content_hash(sets.source_rows(name)) for name in ("micro-directrefusal", "micro-r1act", "micro-retention")}
    assert sets.VERSION == 2 and hashes == {
        "micro-directrefusal": "506a85efe3c7c77b",
        "micro-r1act": "4fcb04254d8851b3",
        "micro-retention": "5bc5cc01aebdb6d9",
    }


def test_retention_rows_are_different_problems_that_nothing_is_measured_on():
    prompts = [row["prompt"] for row in sets.source_rows("micro-retention")]
    assert len(set(prompts)) == len(prompts) == sets.RETENTION_SIZE
    measured = {row["prompt"] for task in STEPS for split in ("probe", "evaluation") for row in sets.problems(task, split)}
    assert len(measured) > 800 and not measured & set(prompts)


def test_retention_rows_look_like_the_problems_of_pretraining():
    """Each is what the corpus holds of a problem in the model's own voice, from two steps to eight."""
    drawn = {prompt: (trace, answer) for prompt, trace, answer in islice(corpus.draws(0), 4000) if trace.startswith("okay")}
    rows = sets.source_rows("micro-retention")
    shape = {prompt.count("step") for prompt in drawn if prompt.startswith("start with")}
    assert {row["prompt"].count("step") for row in rows} == shape == set(range(2, 9))
    for row in rows:
        last = row["trace"].removesuffix(" .").rpartition(" ")[2]
        assert row["trace"].startswith("okay , step a : ") and row["answer"] == f"the last digit is \\boxed{{{last}}} ."
        if row["prompt"] in drawn:
            assert (row["trace"], row["answer"]) == drawn[row["prompt"]]
