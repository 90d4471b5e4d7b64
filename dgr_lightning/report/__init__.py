"""The report of a finished run: `summary.json`, tables in the terminal, a page with charts and examples."""
