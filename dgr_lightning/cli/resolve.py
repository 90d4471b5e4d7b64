"""From a checked config to one without any `auto`: what the run hash holds."""

from __future__ import annotations

from typing import Any

from dgr_lightning.cli import checks
from dgr_lightning.config import TUNING_KEYS, Config

BAD_CONFIG, FAILED, INTERRUPTED = 2, 1, 130


def resolve(cfg: Config, command: str, given: frozenset[str]) -> None:
    """Checks that hub content can be had and turns every `auto` into the value that the run hash will hold.

    Args:
        cfg: a checked config; changed in place.
        command: `train`, `refine` or `evaluate`.
        given: keys that the command line names: what was asked for is never left out silently.

    Raises:
        UserError: something is neither local nor on a hub that can be reached, a device is not there, or the cache cannot be.
    """
    from dgr_lightning.cache import require_cache
    from dgr_lightning.cli import preflight
    from dgr_lightning.engines.registry import check_engine, require_engine, resolve_engine

    require_cache()
    require_engine(cfg.engine.name)
    preflight.require(cfg, command)
    if command == "train" or (command == "refine" and cfg.shift.prompts):
        preflight.drop_probes(cfg, asked_for="probes.tasks" in given)

    from dgr_lightning.console import say
    from dgr_lightning.distributed import devices  # imports torch: from here on nothing of the config is wrong

    auto = [
        key
        for key in ("trainer.accelerator", "trainer.strategy", "trainer.precision", "engine.name", "engine.precision")
        if _of(cfg, key) == "auto"
    ]
    device = devices.resolve_device(cfg.trainer.accelerator)
    cfg.trainer.accelerator = device
    devices.resolve_devices(cfg.trainer)
    checks.check_devices(cfg.trainer)  # again, now that there are so many
    cfg.trainer.precision = devices.resolve_precision(cfg.trainer.precision, device)
    if command == "train":
        checks.check_tuning(cfg)  # likewise
    cfg.engine.precision = devices.resolve_precision(cfg.engine.precision, device)
    cfg.engine.name, why = resolve_engine(cfg.engine.name, device)
    if auto:
        say("auto: " + ", ".join(f"{key}={_of(cfg, key)}" for key in auto) + (f" ({why})" if why else ""))
    check_engine(cfg)  # again, now that it has a name
    unread = {f"engine={cfg.engine.name}": [key for key in given if _is_idle(key, "engine.", cfg)]}
    if command != "evaluate":
        unread[f"refine={cfg.refine.name or cfg.refine.strategy}"] = [key for key in given if _is_idle(key, "refine.", cfg)]
    if command == "train":
        unread[f"tuning={cfg.tuning.method}"] = [key for key in given if _is_idle(key, "tuning.", cfg)]
    for choice, keys in unread.items():
        if keys:
            say(f"[yellow]{', '.join(sorted(keys))}: not used by {choice}[/]")


# --- The screen -----------------------------------------------------------------------------------------------------------


def _of(cfg: Config, key: str) -> Any:
    section, name = key.split(".")
    return vars(vars(cfg)[section])[name]


def _is_idle(key: str, section: str, cfg: Config) -> bool:
    """Whether a key of `engine.`, `refine.` or `tuning.` is one that the chosen engine, strategy or method has no use for."""
    from dgr_lightning.engines.registry import reads
    from dgr_lightning.refinement.strategy import strategy_of

    if not key.startswith(section):
        return False
    name = key.removeprefix(section)
    if section == "engine.":
        return not reads(cfg.engine.name, name)
    if section == "tuning.":
        return name not in ("method", *TUNING_KEYS[cfg.tuning.method])
    return name.partition(".")[0] not in ("name", "strategy", "options", *strategy_of(cfg.refine).keys)
