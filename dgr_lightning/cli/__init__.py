"""The command line: from `train.py key=value` to a checked `Config`, or one message and exit code 2."""
