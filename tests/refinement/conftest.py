"""What tests of refinement share."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from dgr_lightning.refinement import outcome


@pytest.fixture
def screen(monkeypatch) -> io.StringIO:
    """What is printed."""
    stream = io.StringIO()
    console = Console(file=stream, width=100, highlight=False, soft_wrap=True)
    monkeypatch.setattr("dgr_lightning.console.console", console)
    monkeypatch.setattr(outcome, "console", console)
    return stream
