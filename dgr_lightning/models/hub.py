"""Models on the Hugging Face hub: whether they can be reached, and downloads.

Without a network, the hub's libraries retry for half a minute and print every attempt. So one quick request is sent first, once
per process; a pinned commit in the local cache is used without any request; and if a model is out of reach, one message says so
and names the alternative, a local copy.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from threading import Thread

from dgr_lightning.errors import UserError
from dgr_lightning.models.folder import CODE_FILES, MODEL_FILES, check_folder

REACH_SECONDS = 4.0

SETTLED = "DGR_HUB_SETTLED"
"""A variable of this project, set in the processes of a stage: the process that started them has asked the hub already which
commit a branch is at, and all of them read that one from the local cache."""


@cache
def hub_reachable() -> bool:
    """Whether the hub answers one request, without retries, within `REACH_SECONDS`; the answer holds for the process.

    HF_ENDPOINT, proxies and HF_HUB_OFFLINE are honoured, as for downloads.
    """
    import huggingface_hub
    from huggingface_hub.utils import get_session

    if huggingface_hub.is_offline_mode():
        return False
    answers: list[bool] = []

    def ask() -> None:
        try:
            response = get_session().head(huggingface_hub.constants.ENDPOINT, timeout=REACH_SECONDS)
        except Exception:  # any failure of this request would be one of a download, too
            return
        answers.append(response.status_code < 500)

    # In a thread, because a name server that does not answer blocks a call beyond the call's own timeout.
    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(REACH_SECONDS)
    return bool(answers and answers[0])


def unreachable() -> str:
    """Returns the clause that says why the hub is out of reach."""
    import huggingface_hub

    if huggingface_hub.is_offline_mode():
        return "The Hugging Face hub is switched off (HF_HUB_OFFLINE)"
    return f"The Hugging Face hub ({huggingface_hub.constants.ENDPOINT}) cannot be reached"


def model_available(hub_id: str, revision: str | None, *, with_code: bool = False, weights: bool = True) -> bool:
    """Whether a model, or all of it but its weights, is complete in the local cache, or the hub can be reached."""
    return cached_model(hub_id, revision, with_code=with_code, weights=weights) is not None or hub_reachable()


def closed_to_us(hub_id: str) -> bool:
    """Whether the hub, which answers, has a repository that it does not open to this account: gated, private, or unknown.

    One request, without retries; a failure of the request itself is found by the download.
    """
    from huggingface_hub import auth_check
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        auth_check(hub_id)
    except (GatedRepoError, RepositoryNotFoundError):
        return True
    except Exception:  # of the network
        return False
    return False


def cached_model(hub_id: str, revision: str | None, *, with_code: bool = False, weights: bool = True) -> Path | None:
    """Returns the folder of a model in the local cache if it has all files of `fetch_model`; uses no network.

    Raises:
        UserError: `hub_id` is not a repository id.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        # Without the patterns, every file of the repository would have to be in the cache.
        patterns = _patterns(with_code, weights)
        folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns, local_files_only=True))
        check_folder(folder, hub_id, weights=weights)
    except HFValidationError as error:
        raise UserError(f"model.hub_id={hub_id}: not the id of a model ({error}).") from error
    except (LocalEntryNotFoundError, UserError):
        return None
    return folder


def fetch_model(
    hub_id: str, revision: str | None, *, with_code: bool = False, weights: bool = True, key: str = "model.path"
) -> Path:
    """Returns the folder of a hub model: the cached one if it is complete and pinned, else a download.

    Args:
        hub_id: owner/name.
        revision: commit; None follows the default branch, for which the hub is asked if it can be reached.
        with_code: download the repository's Python files, too.
        weights: False leaves the weights on the hub: config and tokenizer alone.
        key: the key that takes a local copy.

    Raises:
        UserError: it is neither in the cache nor on the hub; the message names `key`.
    """
    folder = cached_model(hub_id, revision, with_code=with_code, weights=weights)
    if folder is not None and (revision is not None or not hub_reachable()):
        return folder
    if not hub_reachable():
        raise UserError(f"{unreachable()}, and model {hub_id} is not in the local cache. Set {key}=<local folder>.")
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=_patterns(with_code, weights)))
    except (OSError, ValueError) as error:  # HfHubHTTPError (gated, unknown, wrong revision) is an OSError
        raise UserError(f"{named(hub_id, revision)}: {gist(error)} Or set {key}=<local folder>.") from error
    check_folder(folder, named(hub_id, revision), weights=weights)
    return folder


def _patterns(with_code: bool, weights: bool) -> list[str]:
    files = [*MODEL_FILES, *(CODE_FILES if with_code else ())]
    return files if weights else [file for file in files if ".safetensors" not in file]


def named(hub_id: str, revision: str | None) -> str:
    """Returns a repository's id with its commit, for messages."""
    return f"{hub_id}@{revision}" if revision else hub_id


def gist(error: Exception) -> str:
    """Returns the first two lines of a library's message, which may fill a screen."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (" ".join(lines[:2]) or type(error).__name__).rstrip(".") + "."
