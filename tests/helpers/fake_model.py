"""A model without a folder: an engine and a chat format under the interface of a `ModelHandle`."""

from dataclasses import dataclass
from typing import Any


@dataclass
class FakeModel:
    """Stands for a `ModelHandle` whose engine, chat format and content hash a test chooses."""

    engine_: Any
    chat: Any
    model_hash: str = "m"

    def engine(self) -> Any:
        """Returns the engine; an engine that is an exception is raised: it should not have been started."""
        if isinstance(self.engine_, Exception):
            raise self.engine_
        return self.engine_

    def release(self) -> None:
        """Holds nothing."""
