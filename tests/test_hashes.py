"""Content hashes and orders by hash: the same on every machine, and never others than before."""

from hashlib import sha256

from dgr_lightning.hashes import content_hash, file_hash, file_hashes, sorted_by_hash


def test_equal_content_has_an_equal_hash_on_every_machine():
    assert content_hash({"b": 1, "a": [None, "ü"]}, 0.1) == content_hash({"a": [None, "ü"], "b": 1}, 0.1)
    text = '[{"a":[null,"ü"],"b":1},0.1]'
    assert content_hash({"b": 1, "a": [None, "ü"]}, 0.1) == sha256(text.encode()).hexdigest()[:16]
    assert content_hash("a", "b") != content_hash(["a", "b"])


def test_a_file_is_hashed_by_its_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"\x00\xff" * 100_000)
    assert file_hash(tmp_path / "file") == sha256(b"\x00\xff" * 100_000).hexdigest()


def test_an_order_by_hash_is_that_of_each_text_alone():
    ids = [f"x-{i}" for i in range(100)]
    order = sorted_by_hash(ids, lambda id_: f"3 {id_}")
    assert order[:4] == ["x-83", "x-55", "x-71", "x-74"]
    assert order == sorted(ids, key=lambda id_: sha256(f"3 {id_}".encode()).hexdigest())
    assert sorted_by_hash(reversed(ids), lambda id_: f"3 {id_}") == order
    assert [id_ for id_ in order if id_ in ids[:50]] == sorted_by_hash(ids[:50], lambda id_: f"3 {id_}")


def test_a_content_hash_ignores_the_order_of_keys():
    assert content_hash({"a": 1, "b": [2.5, None]}) == content_hash({"b": [2.5, None], "a": 1}) == "0342cfcd7578252c"


def test_a_folder_is_its_files_by_name_and_bytes_wherever_it_lies(tmp_path):
    for place in (tmp_path / "one", tmp_path / "other"):
        (place / "sub").mkdir(parents=True)
        (place / "b.jsonl").write_bytes(b"{}\n")
        (place / "sub" / "a.jsonl").write_bytes(b"")
    digests = [sha256(content).hexdigest() for content in (b"{}\n", b"")]
    assert file_hashes(tmp_path / "one") == [["b.jsonl", digests[0]], ["sub/a.jsonl", digests[1]]]
    assert file_hashes(tmp_path / "one") == file_hashes(tmp_path / "other")
    assert file_hashes(tmp_path / "one" / "b.jsonl") == [[".", digests[0]]]
