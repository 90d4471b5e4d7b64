import pytest

from dgr_lightning.errors import UserError
from dgr_lightning.text_files import read_lines, read_text_file


def test_a_list_holds_its_lines_without_comments_and_blanks(tmp_path):
    file = tmp_path / "phrases.txt"
    file.write_text("# what follows is ours\n  I cannot help \n\nnaïve # not a comment\n", encoding="utf-8")
    assert read_lines("judge.phrases=phrases.txt", file) == ["I cannot help", "naïve # not a comment"]
    assert read_text_file("judge.phrases=phrases.txt", file).startswith("# what")


def test_what_is_wrong_with_a_file_is_said_with_the_override_that_names_it(tmp_path):
    file = tmp_path / "phrases.txt"
    with pytest.raises(
        UserError, match=r"^judge\.phrases=x: cannot read the file \(No such file.*\); give a text file, or null"
    ):
        read_text_file("judge.phrases=x", file)
    file.write_bytes("naïve".encode("latin-1"))
    with pytest.raises(UserError, match=r"^judge\.phrases=x: not UTF-8 text \(byte 2\); save the file as UTF-8\.$"):
        read_lines("judge.phrases=x", file)
