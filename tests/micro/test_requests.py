"""User requests: disjoint splits, and none that is both harmful and benign."""

import pytest

from dgr_lightning.micro.requests import all_requests

SPLITS = ("train", "probe", "evaluation")


@pytest.mark.parametrize("harmful", [True, False])
def test_requests_of_the_three_splits_share_no_verb_and_object(harmful):
    actions = {split: {request.action for request in all_requests(harmful, split)} for split in SPLITS}
    assert all(actions.values())
    assert not actions["train"] & actions["probe"] and not actions["train"] & actions["evaluation"]
    assert not actions["probe"] & actions["evaluation"]


def test_no_request_is_both_harmful_and_benign():
    actions = [{request.action for split in SPLITS for request in all_requests(harmful, split)} for harmful in (True, False)]
    assert not actions[0] & actions[1]
