"""The benchmarks and request sets that come with the project, a file each: `tasks/registry.py` finds them by looking here."""
