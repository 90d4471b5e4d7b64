"""Token ids in, completions out: a folder an engine behind one protocol."""
