"""Other libraries kept off the screen while they are imported, or while they load and save a model."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

# Wherever they are installed, transformers, lightning and peft import them; they then warn of every kernel that does not load.
_NOISY_IMPORTS = ("torchao", "torch.utils._pytree", "bitsandbytes")


@contextmanager
def quiet_imports() -> Iterator[None]:
    """Keeps the warnings that transformers, peft and what they import log at their first import off the screen."""
    loggers = [logging.getLogger(name) for name in _NOISY_IMPORTS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def quiet_transformers(bars: bool = False) -> Iterator[None]:
    """Keeps transformers' reports and warnings off the screen (what it loads is checked instead).

    Args:
        bars: whether its progress bars are shown.
    """
    from transformers.utils import logging as reports

    verbosity, had_bars = reports.get_verbosity(), reports.is_progress_bar_enabled()
    reports.set_verbosity(reports.CRITICAL)
    if not bars:
        reports.disable_progress_bar()
    try:
        with quiet_imports():
            yield
    finally:
        reports.set_verbosity(verbosity)
        if had_bars:
            reports.enable_progress_bar()
