"""What is wanted → what is stored: jobs that ask for completions, and the shards on disk that keep them."""
