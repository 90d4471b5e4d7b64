"""A Hugging Face folder → tokenizer, chat format, weights, content hash."""
