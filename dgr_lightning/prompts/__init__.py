"""Every text that is sent to a model, as Jinja2 templates, and the phrase lists that are read from files."""
