"""Ctrl-C and SIGTERM while Lightning trains: as in every other stage.

Left to itself, Lightning ends the process with exit code 1 on the first, ignores every further one, and puts SIGTERM off to the
end of a step, where it ends the process with 0.
"""

from __future__ import annotations

import multiprocessing
import signal
from typing import TYPE_CHECKING, Any, Self

from lightning.pytorch import Callback, Trainer

from dgr_lightning.processes import is_main_thread

if TYPE_CHECKING:
    from types import TracebackType


class Interrupts(Callback):
    """A callback, and a context around `Trainer.fit`: what interrupted that is raised from it."""

    def __init__(self) -> None:
        """Notes the handlers, which Lightning will replace."""
        self._handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Has SIGTERM handled as before."""
        self._restore(signal.SIGTERM)

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Lets a second interrupt stop what is done after the first one; a rank gets the second from its parent at once."""
        if multiprocessing.parent_process() is None:
            self._restore(signal.SIGINT)

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Raises the interrupt instead of Lightning's SystemExit."""
        if isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None

    def _restore(self, number: signal.Signals) -> None:
        handler = self._handlers[number]
        if is_main_thread() and handler is not None:  # None: it was not set from Python
            signal.signal(number, handler)
