"""The Hugging Face hub, looked at before it is leaned on.

Without a network, `load_dataset` retries for half a minute and prints every attempt. So one quick question is asked first,
once a process; what the local cache holds at a pinned commit is taken from there without any question; and a run that cannot
have its model or its data says so in one message that names the way out: local copies.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any

from dgr_lightning.config import Config
from dgr_lightning.errors import UserError
from dgr_lightning.model_folder import CODE_FILES, MODEL_FILES, check_folder

REACH_SECONDS = 4.0


@cache
def hub_reachable() -> bool:
    """Asks the hub once, without retries, in at most `REACH_SECONDS`; the answer holds for the process.

    HF_ENDPOINT, proxies and HF_HUB_OFFLINE are honoured: the question goes the way that downloads go.
    """
    import huggingface_hub
    from huggingface_hub.utils import get_session

    if huggingface_hub.is_offline_mode():
        return False
    answers: list[bool] = []

    def ask() -> None:
        try:
            response = get_session().head(huggingface_hub.constants.ENDPOINT, timeout=REACH_SECONDS)
        except Exception:  # whatever keeps the question from being answered would keep a download from coming
            return
        answers.append(response.status_code < 500)

    # A name server that does not answer holds a call for longer than the call's own time-out: wait beside it.
    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(REACH_SECONDS)
    return bool(answers and answers[0])


def require(cfg: Config) -> None:
    """Checks, before anything is loaded, that both the model and the data of a run can be had.

    Local copies and recipes need no hub (that their paths are there is checked at the door).

    Raises:
        UserError: the hub is needed and cannot be reached; one message for model and data, whichever is missing.
    """
    model, data, benign = cfg.model, cfg.data, cfg.data.benign
    missing = []
    fetched = model.hub_id if not (model.path or model.recipe) else None
    if fetched and not model_available(fetched, model.revision, with_code=model.trust_remote_code):
        missing.append(f"model {fetched}")
    if data.hub_id and not (data.path or data.recipe) and not dataset_available(data.hub_id, data.revision):
        missing.append(f"data {data.hub_id}")
    if data.benign_ratio > 0 and benign.hub_id and not benign.path and not dataset_available(benign.hub_id, benign.revision):
        missing.append(f"benign data {benign.hub_id} (data.benign.path)")
    if missing:
        raise UserError(
            f"{unreachable()}, and these are not in the local cache: {', '.join(missing)}. Use local copies: "
            f"model.path=<folder with config.json, *.safetensors and tokenizer>{_already(model.path or model.recipe)} "
            f"data.path=<jsonl, json, csv or parquet file>{_already(data.path or data.recipe)}."
        )


def _already(local: str | None) -> str:
    return f" (local already: {local})" if local else ""


def unreachable() -> str:
    """Returns the clause that says in what way the hub is out of reach."""
    import huggingface_hub

    if huggingface_hub.is_offline_mode():
        return "The Hugging Face hub is switched off (HF_HUB_OFFLINE)"
    return f"The Hugging Face hub ({huggingface_hub.constants.ENDPOINT}) cannot be reached"


# --- Models ---------------------------------------------------------------------------------------------------------------


def model_available(hub_id: str, revision: str | None, *, with_code: bool = False) -> bool:
    """Whether a model can be had: whole in the local cache, or from a hub that answers."""
    return cached_model(hub_id, revision, with_code=with_code) is not None or hub_reachable()


def cached_model(hub_id: str, revision: str | None, *, with_code: bool = False) -> Path | None:
    """Returns the folder of a model in the local cache if all that `fetch_model` would fetch is there; asks no network.

    Raises:
        UserError: `hub_id` is no repository id.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        # The patterns belong to the question: without them, every file of the repository would have to be there.
        patterns = _patterns(with_code)
        folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns, local_files_only=True))
        check_folder(folder, hub_id)
    except HFValidationError as error:
        raise UserError(f"model.hub_id={hub_id}: not the id of a model ({error}).") from error
    except (LocalEntryNotFoundError, UserError):
        return None
    return folder


def fetch_model(hub_id: str, revision: str | None, *, with_code: bool = False) -> Path:
    """Returns the folder of a hub model: the cached one where it is whole and pinned, else a download.

    Args:
        hub_id: owner/name.
        revision: commit; None follows the default branch, and then the hub is asked for news where it can be reached.
        with_code: fetch the repository's Python files too.

    Raises:
        UserError: it can be had from neither; the message names `model.path`.
    """
    folder = cached_model(hub_id, revision, with_code=with_code)
    if folder is not None and (revision is not None or not hub_reachable()):
        return folder
    if not hub_reachable():
        raise UserError(f"{unreachable()}, and model {hub_id} is not in the local cache. Set model.path=<local folder>.")
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=_patterns(with_code)))
    except (OSError, ValueError) as error:  # HfHubHTTPError (gated, unknown, wrong revision) is an OSError
        raise UserError(f"{_named(hub_id, revision)}: {_gist(error)} Or set model.path=<local folder>.") from error
    check_folder(folder, _named(hub_id, revision))
    return folder


def _patterns(with_code: bool) -> list[str]:
    return [*MODEL_FILES, *(CODE_FILES if with_code else ())]


# --- Datasets -------------------------------------------------------------------------------------------------------------


def dataset_available(hub_id: str, revision: str | None) -> bool:
    """Whether a dataset can be had: prepared in the local cache, or from a hub that answers."""
    return bool(_prepared(hub_id, revision, None)) or hub_reachable()


def dataset_rows(
    hub_id: str, revision: str | None, split: str, *, subset: str | None = None, path_key: str = "data.path"
) -> list[dict[str, Any]]:
    """Returns the rows of a hub dataset's split; a pinned commit that was loaded before comes from the cache.

    Args:
        hub_id: owner/name.
        revision: pinned commit; None follows the default branch.
        split: such as `train`.
        subset: the dataset's own configuration, such as GSM8K's `main`.
        path_key: config key that takes a local copy instead, for messages.

    Raises:
        UserError: the dataset, the commit or the split cannot be had.
    """
    prepared = _prepared(hub_id, revision, subset)
    if prepared and (revision is not None or not hub_reachable()):
        return _read_prepared(prepared[-1], hub_id, split, path_key)
    if not hub_reachable():
        raise UserError(f"{unreachable()}, and data {hub_id} is not in the local cache. Set {path_key}=<local file>.")
    import datasets

    try:
        return datasets.load_dataset(hub_id, subset, revision=revision, split=split).to_list()
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        message = f"{_named(hub_id, revision)}, split {split}: {_gist(error)} Or set {path_key}=<local file>."
        raise UserError(message) from error


def _prepared(hub_id: str, revision: str | None, subset: str | None) -> list[Path]:
    """Returns the folders in which `datasets` keeps what it prepared of a dataset, the newest last.

    Its layout is <owner>___<snake_case_name>/<subset>/<version>/<commit>; looked up by commit here, because offline
    `load_dataset` takes the newest folder, whatever its commit.
    """
    import datasets
    from datasets.naming import camelcase_to_snakecase

    owner, slash, name = hub_id.rpartition("/")
    root = Path(datasets.config.HF_DATASETS_CACHE) / f"{owner}{'___' if slash else ''}{camelcase_to_snakecase(name)}"
    folders = root.glob(f"{subset or '*'}/*/{revision or '*'}")
    return sorted(
        (folder for folder in folders if (folder / "dataset_info.json").exists()), key=lambda folder: folder.stat().st_mtime
    )


def _read_prepared(folder: Path, hub_id: str, split: str, path_key: str) -> list[dict[str, Any]]:
    import datasets

    shards = sorted(folder.glob(f"*-{split}.arrow")) or sorted(folder.glob(f"*-{split}-*-of-*.arrow"))
    if not shards:
        raise UserError(f"{hub_id}: the local cache has no split {split!r} of it ({folder}). Set {path_key}=<local file>.")
    return [row for shard in shards for row in datasets.Dataset.from_file(str(shard)).to_list()]


def _named(hub_id: str, revision: str | None) -> str:
    return f"{hub_id}@{revision}" if revision else hub_id


def _gist(error: Exception) -> str:
    """Returns the first two lines of a library's message, which may go on for a screen."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (" ".join(lines[:2]) or type(error).__name__).rstrip(".") + "."
