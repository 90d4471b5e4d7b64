"""Weights & Biases: the settings of a W&B run, its start or resume, and its end.

W&B gets curves, figures and the public part of the config (`config/keys.py`): no path, no address, no host, no text of a source
set. What it would collect by itself is switched off, except for the load of the machine. The results that a run ends with, and
which outputs go with them, are `report/wandb_results.py`'s.
"""

from __future__ import annotations

import netrc
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from rich.markup import escape

from dgr_lightning.config import Config
from dgr_lightning.config.keys import public
from dgr_lightning.config.shareable import shareable
from dgr_lightning.console import say

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run

STEP = "trainer/global_step"

# What W&B records of a machine unless it is told not to: command line, user and program, commit and remote, code, the names of
# all installed packages (a company's own among them), and the host's name, for which an empty one stands.
_COLLECTED = {
    "x_disable_meta": True,
    "disable_git": True,
    "disable_code": True,
    "save_code": False,
    "x_save_requirements": False,
    "host": "",
}


@dataclass(frozen=True)
class WandbSettings:
    """Where a run appears in Weights & Biases.

    Attributes:
        id: identity of the W&B run, under which a resumed run continues.
        project: W&B project.
        entity: team or user; None is the account's default.
        group: the same for all runs of a sweep.
        name: the displayed name.
        folder: for W&B's own files.
        config: the run's config, without what must not leave the machine.
    """

    id: str
    project: str
    entity: str | None
    group: str
    name: str
    folder: Path
    config: dict[str, Any] = field(default_factory=dict)


def wandb_settings(cfg: Config, run_dir: Path, run_hash: str) -> WandbSettings | None:
    """Returns the W&B settings of a run; None without `logger=wandb`."""
    if cfg.logger.name != "wandb":
        return None
    return WandbSettings(
        id=f"{cfg.name}-{run_hash}",
        project=cfg.logger.project,
        entity=cfg.logger.entity,
        group=shareable(cfg.logger.group or cfg.name),
        name=shareable(run_dir.name),
        folder=run_dir,
        config=public(cfg),
    )


def start_wandb(settings: WandbSettings) -> Run:
    """Starts or resumes a W&B run, offline without an account; it never prompts on the terminal."""
    import wandb

    def start(mode: str) -> Run:
        run = wandb.init(
            mode=mode,  # type: ignore[arg-type]
            id=settings.id,
            resume="allow",
            project=settings.project,
            entity=settings.entity,
            group=settings.group,
            name=settings.name,
            dir=settings.folder,
            config=settings.config,
            settings=wandb.Settings(silent=True, console="off", init_timeout=30, **_COLLECTED),  # type: ignore[arg-type]
        )
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP)
        return run

    mode = os.environ.get("WANDB_MODE", "online")
    if mode not in ("offline", "disabled") and not has_wandb_account():
        mode = "offline"
    try:
        run = start(mode)
    except wandb.Error as error:
        if mode != "online":
            raise
        say(f"[yellow]W&B cannot be reached ({escape(str(error))}): offline instead.[/]")
        run, mode = start("offline"), "offline"
    if mode == "offline":
        say(f"W&B: offline; send it later with [bold]wandb sync {escape(str(Path(run.dir).parent))}[/]")
    elif run.url:
        say(f"W&B: {escape(run.url)}")
    return run


def finish_wandb(run: Run, settings: WandbSettings, *, failed: bool) -> None:
    """Ends a W&B run, which sends what is left, and deletes W&B's own logs of it: they are full of paths of this machine."""
    run.finish(exit_code=int(failed))
    folder = settings.folder / "wandb"
    for logs in folder.glob(f"*run-*-{settings.id}/logs"):
        shutil.rmtree(logs, ignore_errors=True)
    for link in folder.glob("debug*.log"):
        link.unlink(missing_ok=True)


def has_wandb_account() -> bool:
    """Whether this machine has a W&B key, in `WANDB_API_KEY` or in the netrc file that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    file = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return host is not None and netrc.netrc(file).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
