"""The model that a stage works with: its content hash, its tokenizer and its engine, each loaded on first use."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from dgr_lightning.config import Config
from dgr_lightning.files import read_json
from dgr_lightning.hashes import content_hash
from dgr_lightning.micro.build import GROWN
from dgr_lightning.models.folder import MERGED
from dgr_lightning.models.model_hash import model_hash, served_hash

if TYPE_CHECKING:
    from dgr_lightning.engines.engine import Engine
    from dgr_lightning.models.chat import Chat


class ModelHandle:
    """A model, base or tuned. A context manager: leaving it frees what its engine holds.

    Attributes:
        folder: the Hugging Face folder.
        served: whether the weights are a server's, and the folder holds config and tokenizer for it alone.
    """

    def __init__(self, folder: Path, cfg: Config, served: bool = False) -> None:
        """Names the model; nothing is loaded yet."""
        self.folder, self.served, self._cfg = folder, served, cfg
        self._engine: Engine | None = None

    @cached_property
    def model_hash(self) -> str:
        """The content hash of the folder's files; for a served model what is known in its place."""
        if self.served:
            engine = self._cfg.engine
            return served_hash(self.folder, engine.served_model or "", engine.url or "")
        return model_hash(self.folder)

    @cached_property
    def identity_hash(self) -> str:
        """What the run hash holds of the model: the recipe where this machine grew it, adapter and base where it added the one
        to the other, else its content.

        Another machine grows other weights from the same recipe, and may round a sum otherwise; the same command is still the
        same run.
        """
        if (self.folder / MERGED).exists():
            return content_hash(read_json(self.folder / MERGED))
        if self._cfg.model.recipe is not None and self._cfg.model.path is None and (self.folder / GROWN).exists():
            return content_hash(read_json(self.folder / GROWN))
        return self.model_hash

    @cached_property
    def chat(self) -> Chat:
        """Tokenizer and template."""
        from dgr_lightning.models.chat import Chat

        model = self._cfg.model
        return Chat.load(
            self.folder,
            model.chat_style,
            model.trust_remote_code,
            model.system_prompt,
            model.template_args,
            model.think_marks,
        )

    def engine(self) -> Engine:
        """Returns the engine over the weights, starting it the first time."""
        from dgr_lightning.engines.registry import open_engine

        if self._engine is None:
            self._engine = open_engine(self._cfg, self.folder, self.chat)
        return self._engine

    def __getstate__(self) -> dict[str, Any]:
        """Pickles the model's identity, for another process, and nothing that is loaded."""
        return {"folder": self.folder, "served": self.served, "model_hash": self.model_hash, "_cfg": self._cfg, "_engine": None}

    def release(self) -> None:
        """Frees what the engine holds, before another stage loads its own."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Releases the engine, also after an exception."""
        self.release()
