"""The exception for mistakes that the user can correct, and how other libraries' messages are quoted.

Its message says what is wrong, where, and what to write instead. The entry points print the message without a traceback and end
with exit code 2; in a sweep it fails its own point, and the others run on.
"""


class UserError(Exception):
    """A bad config, a bad input file, or something that is missing on this machine."""


class Incomplete(Exception):
    """Work of which a part failed, and said why by itself; it is shown by its message, with exit code 1."""


def one_line(text: object, limit: int | None = None) -> str:
    """Returns a library's message to be quoted in ours: without line breaks, and at most `limit` characters of it."""
    return " ".join(str(text).split())[:limit]
