import pytest

from dgr_lightning.visible_text import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\rb\x08\x00\x7f", "a\\x0db\\x08\\x00\\x7f"),
        ("\u202eabc\u2066", "\\u202eabc\\u2066"),
        ("\u2028", "\\u2028"),
        ("\ud83d", "\\ud83d"),
    ],
)
def test_what_a_terminal_obeys_is_shown_as_its_escape(text, shown):
    assert visible(text) == shown
    assert visible(shown) == shown


def test_other_text_lines_and_tabs_stay():
    text = "größe ⏎ 模型 👩‍🔬 עברית\n\tend"
    assert visible(text) == text
