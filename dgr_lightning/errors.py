"""The one exception meant for people.

A `UserError` says what is wrong, where, and what to write instead. The entry points print its message alone, without a
traceback, and end with exit code 2; inside a sweep it fails its own point and lets the others run.
"""


class UserError(Exception):
    """A bad config, a bad input file, or something missing on this machine that the user can put right."""
