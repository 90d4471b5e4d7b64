"""A finished run told: tables in the terminal, a page with charts and examples, `summary.json`."""
