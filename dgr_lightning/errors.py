"""The one exception meant for people, and how other libraries' messages are quoted.

A `UserError` says what is wrong, where, and what to write instead. The entry points print its message alone, without a
traceback, and end with exit code 2; inside a sweep it fails its own point and lets the others run.
"""


class UserError(Exception):
    """A bad config, a bad input file, or something missing on this machine that the user can put right."""


def one_line(text: object, limit: int | None = None) -> str:
    """Returns a library's message to be quoted in ours: without line breaks, and at most `limit` characters of it."""
    return " ".join(str(text).split())[:limit]
