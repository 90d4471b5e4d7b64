"""Stores: after any damage a row is read as it was written, or not at all; what is written afterwards is kept beside it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from dgr_lightning.errors import UserError
from dgr_lightning.generation.completions import CompletionStore, StoredCompletion
from tests.fuzz.store import HEADER, NAME, SEEDS, SHARD, check, line, read_all, row, write_one
from tests.helpers.strategies import TEXTS, damaged

COMPLETIONS = st.lists(
    st.builds(StoredCompletion, TEXTS, st.integers(0, 10**9), st.sampled_from(["stop", "length"])), max_size=5
)


def written(folder, completions):
    """Writes a store of one shard and returns its bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NAME).unlink(missing_ok=True)
    with CompletionStore(folder, HEADER) as store:
        assert store.claim(SHARD, wait=False)
        for number, completion in enumerate(completions):
            store.append(f"x/{number}", completion)
    return (folder / NAME).read_bytes()


@given(st.one_of(st.binary(max_size=80), st.sampled_from(SEEDS).flatmap(damaged)))
@settings(max_examples=200)
def test_any_shard_is_read_or_one_message(content):
    check(content)


@given(COMPLETIONS)
def test_a_store_is_read_as_it_was_written(tmp_path_factory, completions):
    folder = tmp_path_factory.getbasetemp() / "store"
    written(folder, completions)
    with CompletionStore(folder, HEADER) as store:
        assert read_all(store) == {f"x/{number}": completion for number, completion in enumerate(completions)}


# What a process or a machine that dies leaves at the end of a file, and what somebody may append to it.
ENDS = st.one_of(
    st.just(b""), st.binary(max_size=30), st.integers(1, 5000).map(lambda size: b"\0" * size), TEXTS.map(str.encode)
)


@given(COMPLETIONS, st.data(), ENDS)
@settings(max_examples=200)
def test_whole_rows_before_a_torn_end_are_read_as_written_and_nothing_else_is(tmp_path_factory, completions, data, end):
    folder = tmp_path_factory.getbasetemp() / "torn"
    whole = written(folder, completions)
    cut = data.draw(st.integers(0, len(whole)))
    (folder / NAME).write_bytes(whole[:cut] + end)
    num_whole = max(0, whole[:cut].count(b"\n") - 1)
    expected = {f"x/{number}": completion for number, completion in enumerate(completions[:num_whole])}
    try:
        with CompletionStore(folder, HEADER) as store:
            found = read_all(store)
            assert found == expected
            write_one(store, found)
    except UserError as error:
        assert NAME in str(error) or str(folder) in str(error)
        assert b"\n" in end or end == b"" or whole[:cut] == b"", "a torn end is removed, not refused"


@given(COMPLETIONS.filter(bool), st.data())
@settings(max_examples=200)
def test_a_row_that_lost_a_piece_is_never_taken_for_another(tmp_path_factory, completions, data):
    folder = tmp_path_factory.getbasetemp() / "pieces"
    whole = written(folder, completions)
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    (folder / NAME).write_bytes(whole[:start] + b"\0" * (stop - start) + whole[stop:])  # a block that never reached the disk
    try:
        with CompletionStore(folder, HEADER) as store:
            found = read_all(store)
    except UserError:
        return
    assert all(completions[int(key.removeprefix("x/"))] == completion for key, completion in found.items())


def test_a_row_of_another_shard_is_refused(tmp_path):
    (tmp_path / NAME).write_bytes(line({"header": HEADER}) + line(row("elsewhere/1", "text")))
    try:
        CompletionStore(tmp_path, HEADER)
    except UserError as error:
        assert f"{NAME}, line 2: unreadable" in str(error)
    else:
        raise AssertionError("taken for a row of this shard")
