"""Checks of messages to the user."""


def check_message(text: str, parts: list[str]) -> None:
    assert text.startswith("error: ") and "Traceback" not in text
    missing = [part for part in parts if part not in text]
    assert not missing, f"{missing} not in: {text}"
