import pytest

from dgr_lightning.visible_text import visible, without_secrets


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET https://me:pw@host:80/v1 failed", "GET https://…@host:80/v1 failed"),
        ("http://host/v1?token=abc&x=1", "http://host/v1?token=…&x=1"),
        ("http://host/v1?a=1&api_key=abc'", "http://host/v1?a=1&api_key=…'"),
        ("Invalid token hf_abcdefghijklmnopqrstuvwxyz.", "Invalid token hf_…."),
        ("key sk-proj-abcdefghijklmnop is wrong", "key sk-… is wrong"),
        ("the key is 0123456789abcdef", "the key is <WANDB_API_KEY>"),
    ],
)
def test_keys_are_left_out_of_messages(text, shown, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.setenv("HF_TOKEN", "")
    assert without_secrets(text) == shown


@pytest.mark.parametrize(
    "text", ["http://127.0.0.1:8000/v1", "a@b.org", "sft.lr=1e-3", "what? key=value", "hf_hub", "owner/sk-set"]
)
def test_other_addresses_and_words_stay(text):
    assert without_secrets(text) == text


def test_a_failure_names_no_key(capsys, monkeypatch):
    from dgr_lightning.cli.failures import show_failure
    from dgr_lightning.errors import UserError

    monkeypatch.setenv("HF_TOKEN", "a-token-of-some-kind")
    for kind in (UserError, ValueError):
        show_failure(kind("401 for https://me:pw@host/?token=abcd with a-token-of-some-kind"))
    shown = capsys.readouterr()
    assert "https://…@host/?token=… with <HF_TOKEN>" in shown.err
    assert not [secret for secret in ("pw@", "abcd", "a-token-of-some-kind") if secret in shown.err + shown.out]
