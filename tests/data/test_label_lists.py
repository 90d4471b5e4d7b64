"""Labels by row id: what is shipped, and what a list does to a set and to its hash."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from dgr_lightning.config import DataConfig, FieldsConfig
from dgr_lightning.data import label_lists
from dgr_lightning.data.label_lists import label_list_file, read_labels
from dgr_lightning.data.sources import data_hash, load_examples
from dgr_lightning.errors import UserError
from dgr_lightning.example import HARMFUL, SAFE_COMPLETION
from dgr_lightning.refinement.strategies.thinksafe import TEMPLATE, SteeredResponse
from tests.helpers.source_sets import source_set


@pytest.fixture
def own_list(tmp_path, monkeypatch):
    """A list `mine-1` in which row 1 is a safe completion."""
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "mine-1.json").write_text(json.dumps({"ids": {HARMFUL: ["0"], SAFE_COMPLETION: ["1"]}}))
    monkeypatch.setattr(label_lists, "_FOLDER", folder)
    return folder / "mine-1.json"


def rows(number):
    return [{"prompt": f"p{index}", "response": f"t</think>a{index}"} for index in range(number)]


def test_the_list_of_star1_labels_every_row_once_and_holds_no_text():
    described = json.loads(label_list_file("star1-1").read_text(encoding="utf-8"))
    counts = Counter(read_labels("star1-1").values())
    assert counts == {HARMFUL: 638, SAFE_COMPLETION: 362}
    assert all(id_.isdigit() for ids in described["ids"].values() for id_ in ids)
    assert {"rule", "judge", "read_by_hand"} <= described.keys()


def test_a_list_counts_instead_of_the_rows_own_label_and_the_rest_have_theirs(tmp_path, own_list, capsys):
    data = source_set(tmp_path, rows(3), label_list="mine-1")
    examples = load_examples(data, seed=1).examples
    assert [example.label for example in examples] == ["harmful", "safe_completion", "harmful"]
    assert "3 rows, 3 examples drawn (2 harmful, 1 safe_completion, 0 benign)" in " ".join(capsys.readouterr().out.split())


def test_a_list_changes_the_hash_of_the_set_and_none_does_not(tmp_path, own_list):
    data = source_set(tmp_path, rows(3))
    listed = replace(data, label_list="mine-1")
    before = data_hash(listed)
    assert data_hash(data) != before
    own_list.write_text(json.dumps({"ids": {HARMFUL: ["0", "1"], SAFE_COMPLETION: []}}))
    assert data_hash(listed) != before


def test_a_list_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    with pytest.raises(UserError, match=r"data\.label_list=star1-9: there is no such list\. Write one of star1-1, or null"):
        load_examples(source_set(tmp_path, rows(1), label_list="star1-9"), seed=1)


def test_on_star1_thinksafe_steers_only_what_the_source_refuses(shared):
    data = DataConfig(
        name="star1",
        path=str(shared / "data/star1/STAR-1.json"),
        label_list="star1-1",
        fields=FieldsConfig(id="id", prompt="question", response="response"),
    )
    step = SteeredResponse(TEMPLATE.load(None))
    steered = Counter()
    for example in load_examples(data, seed=1).examples:
        steered[example.label, step.prompt(example, "") != example.prompt] += 1
    assert steered == {(HARMFUL, True): 638, (SAFE_COMPLETION, False): 362}
