"""Model folders and run directories: any value in a small file is taken, or refused by one message that names the file."""

import csv
import math

from hypothesis import given, settings
from hypothesis import strategies as st

from dgr_lightning.errors import UserError
from dgr_lightning.training.curves import STEP, Curves, read_curves
from tests.fuzz.folders import CONFIG, FILES, SEEDS, check
from tests.helpers.strategies import TEXTS, VALUES, damaged, encoded

FIELDS = st.sampled_from(
    [
        *CONFIG,
        "weight_map",
        "metadata",
        "chat_style",
        "think_marks",
        "system_prompt",
        "template_args",
        "eos_token_id",
        "auto_map",
    ]
)
NAMES = st.sampled_from(["model-1.safetensors", "../x.safetensors", "w.bin", "", ".", "/etc/passwd", "a\0.safetensors"])
MAPS = st.dictionaries(TEXTS, st.one_of(NAMES, VALUES), max_size=3)
OBJECTS = st.dictionaries(
    FIELDS, st.one_of(VALUES, MAPS, st.sampled_from(["marks", "think", ["<a>", "</a>"], [1, 2]])), max_size=4
)


@given(st.sampled_from(range(len(FILES))), st.one_of(OBJECTS, VALUES))
@settings(max_examples=300)
def test_any_value_in_a_file_of_a_folder_is_taken_or_one_message(kind, value):
    check(bytes([kind]) + encoded(value))


@given(st.sampled_from(SEEDS).flatmap(damaged))
@settings(max_examples=200)
def test_a_damaged_file_of_a_folder_is_taken_or_one_message(content):
    check(content)


NUMBERS = st.floats(allow_nan=False)
CURVE = st.lists(st.dictionaries(st.sampled_from(["train/loss", "probe/a", "größe"]), NUMBERS), max_size=6)


@given(CURVE, st.data())
@settings(max_examples=200)
def test_curves_are_read_as_written_and_torn_ones_up_to_the_tear(tmp_path_factory, rows, data):
    file = tmp_path_factory.getbasetemp() / "metrics.csv"
    file.unlink(missing_ok=True)
    with Curves(file) as curves:
        for step, row in enumerate(rows):
            curves.write(step, row)
    whole = file.read_bytes()
    found = read_curves(file)
    for name in ("train/loss", "probe/a", "größe"):
        assert found.get(name, []) == [(step, row[name]) for step, row in enumerate(rows) if name in row]
    cut = data.draw(st.integers(0, len(whole)))
    file.write_bytes(whole[:cut])
    with Curves(file, resumed_step=10) as curves:
        kept = [step for step in range(len(rows)) if step in curves]
        assert kept == list(range(len(kept))) and len(kept) >= whole[:cut].count(b"\n") - 1
        assert all(curves.column(name)[step] == rows[step][name] for step in kept for name in rows[step])


@given(st.one_of(st.binary(max_size=60), st.lists(st.lists(TEXTS, max_size=3), max_size=4)))
@settings(max_examples=200)
def test_any_file_of_curves_is_read_or_one_message(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "odd.csv"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        with open(file, "w", encoding="utf-8", newline="") as opened:
            csv.writer(opened, lineterminator="\n").writerows([[STEP, "train/loss"], *content])
    for read in (read_curves, lambda path: Curves(path, resumed_step=5).close()):
        try:
            found = read(file)
        except UserError as error:
            assert str(file) in str(error)
        else:
            assert found is None or all(math.isfinite(step) or step for curve in found.values() for step, _ in curve)
