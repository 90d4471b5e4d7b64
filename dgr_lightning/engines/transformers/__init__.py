"""The project's own decoding loop over a transformers model; runs everywhere."""
