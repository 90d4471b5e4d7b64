"""A server as the subject of an evaluation: its weights are nowhere here, and config and tokenizer are all that is read.

Nothing heavy is imported: the command line asks before a run begins.
"""

from __future__ import annotations

from dgr_lightning.config import Config
from dgr_lightning.files import local_path
from dgr_lightning.models.folder import has_weights


def is_served(cfg: Config) -> bool:
    """Whether an evaluation measures the model of a server, whose weights are not here: only its tokenizer is.

    That is so for `engine=server` with a model of the hub, and with a folder that holds no weights. A folder with weights says
    that the server serves these, and names the model by their content.
    """
    model = cfg.model
    if cfg.engine.name != "server" or model.recipe is not None:
        return False
    return model.path is None or not has_weights(local_path(model.path))
