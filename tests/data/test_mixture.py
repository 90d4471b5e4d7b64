"""Several sources in one set: exact shares, rows drawn once, distinct ids, a hash that every part counts for."""

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from dgr_lightning.config import DataConfig, FieldsConfig, MixPart
from dgr_lightning.data.mixture import part_sizes
from dgr_lightning.data.sources import data_hash, load_examples
from dgr_lightning.errors import UserError
from dgr_lightning.example import Example, RefinedExample
from dgr_lightning.files import write_jsonl
from tests.helpers.source_sets import plain_rows, source_set


def part(tmp_path, rows, share, kind="harmful", *, name="set", file=None, **settings) -> MixPart:
    path = source_set(tmp_path, rows, name=file or name).path
    return MixPart(name=name, path=path, data="local", share=share, kind=kind, **settings)


def mixture(*parts: MixPart, limit=None) -> DataConfig:
    return DataConfig(name="mix", mix=list(parts), limit=limit)


def loaded(*parts: MixPart, limit=None, seed=1) -> list[Example]:
    return load_examples(mixture(*parts, limit=limit), seed).examples


@pytest.fixture
def three(tmp_path):
    """A harmful part of 70 rows, a benign one of 20 and one of retention rows of 30."""
    return (
        part(tmp_path, plain_rows(70, "harmful") + plain_rows(9, "benign", 70), 0.7, name="safe"),
        part(tmp_path, plain_rows(8, "harmful", 100) + plain_rows(20, "benign", 108), 0.2, "benign", name="help"),
        part(tmp_path, plain_rows(30, "harmful", 200), 0.1, "retention", name="maths"),
    )


# --- Sizes --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shares", [(1.0,), (0.7, 0.2, 0.1), (1 / 3, 1 / 3, 1 / 3), (0.29, 0.71), (0.05,) * 20, (0.995, 0.005)])
def test_sizes_sum_up_to_the_total_and_none_is_off_by_one(shares):
    for total in range(300):
        sizes = part_sizes(shares, total)
        assert sum(sizes) == total and all(size >= 0 for size in sizes)
        assert all(abs(size - share * total / math.fsum(shares)) < 1 for size, share in zip(sizes, shares, strict=True))


def test_sizes_that_need_no_rounding_are_the_shares():
    assert part_sizes((0.7, 0.2, 0.1), 10) == [7, 2, 1]
    assert part_sizes((0.29, 0.71), 100) == [29, 71]


def test_equal_remainders_go_to_the_earlier_part():
    assert part_sizes((0.25, 0.25, 0.25, 0.25), 6) == [2, 2, 1, 1]


# --- The set ------------------------------------------------------------------------------------------------------------------


def test_three_kinds_in_one_set_part_by_part(three, capsys):
    examples = loaded(*three, limit=50)
    assert [example.label for example in examples] == ["harmful"] * 35 + ["benign"] * 10 + ["retention"] * 5
    assert [example.source for example in examples] == ["safe"] * 35 + ["help"] * 10 + ["maths"] * 5
    assert len({example.id for example in examples}) == 50
    assert load_examples(mixture(*three, limit=50), 1).part_sizes == (35, 10, 5)
    for of_part in (examples[:35], examples[35:45], examples[45:]):
        rows = [int(example.id.partition("-")[2]) for example in of_part]
        assert rows == sorted(rows), "the order of the source"
    assert "data.mix[1], help: 10 of 20 examples drawn (benign 10)" in capsys.readouterr().out


def test_without_a_limit_the_set_is_as_large_as_all_parts_allow(three):
    assert load_examples(mixture(*three), 1).part_sizes == (70, 20, 10)
    smaller = replace(three[1], first=20)  # 8 harmful rows and 12 benign ones
    assert load_examples(mixture(three[0], smaller, three[2]), 1).part_sizes == (44, 12, 6), "62: one more would be 13 benign"


def test_a_part_with_too_few_rows_is_named_with_the_limit_that_would_fit(three):
    with pytest.raises(UserError) as error:
        loaded(*three, limit=120)
    text = "data.mix[0] (safe, harmful): share 0.7 of data.limit=120 is 84 examples, and it has 70. Write data.limit=100, or"
    assert str(error.value).startswith(text)
    assert len(loaded(*three, limit=100)) == 100
    with pytest.raises(
        UserError, match=r"data\.mix\[1\] \(help, benign\): share 0\.2 of data\.limit=100 is 20 .* it has 2\. Write"
    ):
        loaded(three[0], replace(three[1], first=10), three[2], limit=100)


def test_draws_are_seeded_and_a_larger_limit_keeps_a_smaller_draw(three):
    draws = [{example.id for example in loaded(*three, limit=limit)} for limit in (10, 20, 50, 100)]
    assert all(smaller < larger for smaller, larger in pairwise(draws))
    assert draws[1] != {example.id for example in loaded(*three, limit=20, seed=2)}


# --- Kinds --------------------------------------------------------------------------------------------------------------------


def test_a_harmful_part_has_the_labels_of_its_set_but_neither_benign_nor_retention_rows(tmp_path):
    four = ("harmful", "safe_completion", "benign", "retention")
    rows = [row for index, label in enumerate(four) for row in plain_rows(3, label, 3 * index)]
    labels = Counter(example.label for example in loaded(part(tmp_path, rows, 1.0)))
    assert labels == {"harmful": 3, "safe_completion": 3}
    with pytest.raises(
        UserError, match=r"data\.mix\[0\] \(set\): no row is labelled harmful or safe_completion, and kind=harmful"
    ):
        loaded(part(tmp_path, plain_rows(3, "benign"), 1.0))


def test_a_benign_part_takes_rows_labelled_benign_or_all_of_a_set_without_labels(tmp_path):
    mixed = plain_rows(3, "harmful") + plain_rows(2, "benign", 3) + plain_rows(1, "", 5)
    assert [example.id for example in loaded(part(tmp_path, mixed, 1.0, "benign"))] == ["set-3", "set-4"]
    assert Counter(example.label for example in loaded(part(tmp_path, plain_rows(4), 1.0, "benign"))) == {"benign": 4}
    listed = part(tmp_path, [row | {"id": "1"} for row in plain_rows(1)], 1.0, "benign", label_list="star1-1")
    with pytest.raises(UserError, match=r"no row is labelled benign.*Found: harmful 1"):
        loaded(listed)


def test_a_retention_part_takes_every_row_whatever_it_says_of_itself(tmp_path):
    rows = plain_rows(2, "harmful") + plain_rows(2, "grade school", 2) + plain_rows(2, "", 4)
    one = part(tmp_path, rows, 1.0, "retention", fields=FieldsConfig(label="label", labels={"harmful": "benign"}))
    assert [example.label for example in loaded(one)] == ["retention"] * 6
    named = part(tmp_path, rows, 1.0, "retention", keep={"label": "grade school"})
    assert [example.id for example in loaded(named)] == ["set-2", "set-3"]


def test_field_maps_may_call_rows_retention(tmp_path):
    columns = FieldsConfig(labels={"maths": "retention"}, default_label="retention")
    data = source_set(tmp_path, plain_rows(2, "harmful") + plain_rows(2, "maths", 2) + plain_rows(1, "", 4), fields=columns)
    assert Counter(example.label for example in load_examples(data, 1).examples) == {"harmful": 2, "retention": 3}


def test_what_a_run_trained_on_is_a_part_like_any_other(tmp_path):
    refined = [RefinedExample(f"star1-{i}", f"q{i}", "t", "a", "benign" if i == 2 else "harmful", "star1") for i in range(4)]
    write_jsonl(tmp_path / "refined.jsonl", refined)
    again = MixPart(name="local", path=str(tmp_path / "refined.jsonl"), data="local", share=0.5)
    examples = loaded(part(tmp_path, plain_rows(3), 0.5, name="star1"), again)
    assert [example.id for example in examples[3:]] == ["local-star1-0", "local-star1-1", "local-star1-3"]
    assert {example.source for example in examples[3:]} == {"local"}


# --- Parts that read the same rows --------------------------------------------------------------------------------------------


def test_a_row_that_one_part_drew_is_not_drawn_again(tmp_path):
    rows = plain_rows(30, "harmful") + plain_rows(10, "benign", 30)
    everything = part(tmp_path, rows, 0.5, "retention")
    harmful = part(tmp_path, rows, 0.5)
    for order in ((everything, harmful), (harmful, everything)):
        examples = loaded(*order, limit=30)
        assert len({example.id for example in examples}) == 30
        assert Counter(example.label for example in examples) == {"retention": 15, "harmful": 15}
    assert loaded(everything, harmful, limit=30) != loaded(harmful, everything, limit=30)
    assert len(loaded(harmful, everything)) == 40


def test_parts_that_compete_for_rows_are_told_how_many_are_left(tmp_path):
    rows = plain_rows(20, "harmful")
    first, second = part(tmp_path, rows, 0.75), part(tmp_path, rows, 0.25, "retention")
    with pytest.raises(UserError) as error:
        loaded(first, second, limit=24)
    text = "data.mix[1] (set, retention): share 0.25 of data.limit=24 is 6 examples, and it has 2 that no part before it draws."
    assert str(error.value).startswith(f"{text} Write data.limit=20, or")
    assert len(loaded(first, second, limit=20)) == len(loaded(first, second)) == 20


def test_ids_that_stand_for_different_rows_are_refused(tmp_path):
    first = part(tmp_path, plain_rows(3), 0.5, file="one")
    second = part(tmp_path, plain_rows(3, None, 3), 0.5, file="two")
    with pytest.raises(UserError, match=r"data\.mix\[0\], data\.mix\[1\]: 3 ids stand for different rows, such as 'set-0'\."):
        loaded(first, second)


def test_messages_name_the_key_of_the_part(tmp_path, three):
    with pytest.raises(UserError, match=r"data\.mix\[1\]\.path=nowhere\.jsonl: no such file"):
        loaded(three[0], replace(three[1], path="nowhere.jsonl"), three[2])
    with pytest.raises(UserError, match=r"data\.mix\[2\]\.keep\.label=x: no row has this value"):
        loaded(*three[:2], replace(three[2], keep={"label": "x"}))
    with pytest.raises(UserError, match=r"data\.mix\[0\]\.fields\.prompt: no row has a column 'q'"):
        loaded(replace(three[0], fields=FieldsConfig(prompt="q")), *three[1:])
    with pytest.raises(UserError, match=r"data\.mix\[0\]\.label_list=none: there is no such list"):
        data_hash(mixture(replace(three[0], label_list="none"), *three[1:]))


def test_rows_that_are_measured_on_are_rejected_in_every_part(three):
    found = load_examples(mixture(*three), 1, lambda prompt: prompt in ("p0", "p1", "p110", "p200"))
    assert found.rejected == {"overlap": 4} and not {"p0", "p1", "p110", "p200"} & {one.prompt for one in found.examples}


# --- Content hash -------------------------------------------------------------------------------------------------------------

CHANGES = [
    {"name": "other"},
    {"share": 0.6},
    {"kind": "retention"},
    {"keep": {"label": "harmful"}},
    {"first": 20},
    {"label_list": "star1-1"},
    {"fields": FieldsConfig(prompt="prompt")},
    {"fields": FieldsConfig(default_label="benign")},
    {"fields": FieldsConfig(labels={"benign": "retention"})},
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
@pytest.mark.parametrize("index", [0, 1])
def test_everything_that_makes_a_part_counts(three, changes, index):
    changed = [replace(one, **changes) if at == index else one for at, one in enumerate(three)]
    assert data_hash(mixture(*changed)) != data_hash(mixture(*three))


def test_the_rows_of_every_part_count_and_their_paths_do_not(tmp_path, three):
    reference = data_hash(mixture(*three))
    moved = tmp_path / "elsewhere.jsonl"
    moved.write_bytes((tmp_path / "maths.jsonl").read_bytes())
    assert data_hash(mixture(*three[:2], replace(three[2], path=str(moved)))) == reference
    moved.write_text(moved.read_text() + "\n")
    assert data_hash(mixture(*three[:2], replace(three[2], path=str(moved)))) != reference
    hub = replace(three[2], path=None, hub_id="owner/set", revision="1")
    assert len({data_hash(mixture(*three[:2], replace(hub, revision=revision))) for revision in ("1", "2")}) == 2


def test_which_parts_read_the_same_rows_counts_as_it_decides_who_draws_which(tmp_path):
    first = part(tmp_path, plain_rows(30), 0.5, name="x", file="rows")
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(Path(first.path).read_bytes())
    same, other = (replace(first, name="y", path=path) for path in (first.path, str(copy)))
    drawn = [loaded(first, second, limit=10) for second in (same, other)]
    assert drawn[0] != drawn[1] and data_hash(mixture(first, same)) != data_hash(mixture(first, other))


def test_a_rejected_row_that_several_parts_read_counts_once(tmp_path):
    rows = [*plain_rows(30), {"prompt": "p", "trace": "t", "answer": ""}]
    first = part(tmp_path, rows, 0.5, name="x", file="rows")
    found = load_examples(mixture(first, replace(first, name="y", kind="retention")), 1)
    assert found.rejected == {"empty_answer": 1}


def test_the_order_of_parts_and_their_number_count(three):
    hashes = {data_hash(mixture(*parts)) for parts in (three, three[::-1], three[:2], (three[0],))}
    assert len(hashes) == 4


# --- Real rows ----------------------------------------------------------------------------------------------------------------


def test_star1_with_problems_of_gsm8k_to_retain_reasoning(shared):
    star = FieldsConfig(id="id", prompt="question", response="response")
    # Rows without reasoning of their own: the refinement writes the trace.
    maths = FieldsConfig(prompt="question", answer="answer", constant_trace="")
    data = mixture(
        MixPart("star1", path=str(shared / "data/star1/STAR-1.json"), share=0.8, fields=star, label_list="star1-1"),
        MixPart("gsm8k", path=str(shared / "data/gsm8k/test.jsonl"), share=0.2, kind="retention", fields=maths),
    )
    found = load_examples(data, 1)
    assert found.part_sizes == (1000, 250) and not found.rejected
    labels = Counter(example.label for example in found.examples)
    assert labels == {"harmful": 638, "safe_completion": 362, "retention": 250}
    assert all("####" in example.answer for example in found.examples[1000:])
