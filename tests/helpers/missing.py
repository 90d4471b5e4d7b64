"""Packages hidden from a process, as if they were not installed, for tests; imports nothing but the import system."""

import sys
from importlib.machinery import PathFinder


def hide(*packages: str) -> None:
    """Makes every later import of these packages fail, and every search for them find nothing."""

    class Finder(PathFinder):
        @classmethod
        def find_spec(cls, name, path=None, target=None):
            return None if name.partition(".")[0] in packages else PathFinder.find_spec(name, path, target)

    assert not set(packages) & set(sys.modules)
    sys.meta_path[:] = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
