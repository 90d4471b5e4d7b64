"""Missing completions → stored completions: jobs that ask for them, and the shards on disk that hold them."""
