"""Any server with OpenAI's completions interface that takes token ids."""
