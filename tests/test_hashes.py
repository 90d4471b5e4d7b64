import hashlib

from dgr_lightning.hashes import content_hash, file_hash


def test_equal_content_has_an_equal_hash_on_every_machine():
    assert content_hash({"b": 1, "a": [None, "ü"]}, 0.1) == content_hash({"a": [None, "ü"], "b": 1}, 0.1)
    text = '[{"a":[null,"ü"],"b":1},0.1]'
    assert content_hash({"b": 1, "a": [None, "ü"]}, 0.1) == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert content_hash("a", "b") != content_hash(["a", "b"])


def test_a_file_is_hashed_by_its_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"\x00\xff" * 100_000)
    assert file_hash(tmp_path / "file") == hashlib.sha256(b"\x00\xff" * 100_000).hexdigest()
