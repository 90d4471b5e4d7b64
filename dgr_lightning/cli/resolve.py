"""From a checked config to one without any `auto`: what the run hash holds."""

from __future__ import annotations

from functools import cache

from rich.markup import escape

from dgr_lightning.cli import checks
from dgr_lightning.config import Config
from dgr_lightning.config.keys import keys, unread_by_method, value_of
from dgr_lightning.config.setting import AUTO
from dgr_lightning.engines.registry import ENGINES
from dgr_lightning.engines.spec import INSTALL_FOR_GPU
from dgr_lightning.pipeline.served_model import is_served
from dgr_lightning.refinement.strategy import STRATEGIES

_JUDGE = frozenset({"judge", "judge.name", "judge.phrases"})
"""What names a judge on the command line."""


def resolve(cfg: Config, command: str, given: frozenset[str]) -> None:
    """Checks that hub content is in reach, and turns every `auto` into the value that the run hash will hold.

    Args:
        cfg: a checked config; changed in place.
        command: `train`, `refine` or `evaluate`.
        given: keys that the command line names; what was asked for is never left out silently.

    Raises:
        UserError: something is neither local nor on a hub that answers, a device is missing, or the cache cannot be made.
    """
    from dgr_lightning.cache import require_cache
    from dgr_lightning.cli import preflight
    from dgr_lightning.cli.missing_tasks import drop_probes
    from dgr_lightning.engines.registry import check_engine, require_engine, resolve_engine

    require_cache()
    require_engine(cfg.engine.name)
    preflight.require(cfg, command)
    if command == "train" or (command == "refine" and cfg.shift.prompts):
        drop_probes(cfg.probes, asked_for="probes.tasks" in given)

    from dgr_lightning.console import say
    from dgr_lightning.distributed import devices  # imports torch
    from dgr_lightning.pipeline.locate_model import locate_tokenizer
    from dgr_lightning.pipeline.strategy_choice import any_strategy, choose_strategy

    auto = [
        key
        for key in ("trainer.accelerator", "trainer.strategy", "trainer.precision", "engine.name", "engine.precision")
        if value_of(cfg, key) == "auto"
    ]
    device = devices.resolve_device(cfg.trainer.accelerator)
    cfg.trainer.accelerator = device
    devices.resolve_devices(cfg.trainer)
    cfg.trainer.precision = devices.resolve_precision(cfg.trainer.precision, device)
    whys: dict[str, str | None] = {}
    if cfg.trainer.strategy == "auto":
        cfg.trainer.strategy = any_strategy(cfg.trainer)
        if command == "train":
            cfg.trainer.strategy, whys["trainer.strategy"] = choose_strategy(cfg, lambda: locate_tokenizer(cfg.model))
    if command == "train" and device == "cuda" and cfg.trainer.compile == AUTO:
        auto.append("trainer.compile")
    whys["trainer.compile"] = devices.resolve_compile(cfg.trainer, cfg.tuning.method)
    checks.check_devices(cfg.trainer)  # again, now that strategy and number of devices are known
    if command == "train":
        checks.check_tuning(cfg)  # again, now that strategy and precision are known
    cfg.engine.precision = devices.resolve_precision(cfg.engine.precision, device)
    if command == "evaluate" and is_served(cfg):
        from dgr_lightning.engines.server import only_model

        cfg.engine.served_model = only_model(cfg.engine)  # it stands for weights that are not here
    cfg.engine.name, whys["engine.name"] = resolve_engine(cfg.engine.name, device)
    if auto:
        say("auto: " + ", ".join(_told(cfg, key, whys.get(key)) for key in auto))
    if (why := whys["engine.name"]) and device == "cuda" and cfg.engine.name == "transformers":
        install = escape(INSTALL_FOR_GPU)
        _warn_once(f"[yellow]engine=auto takes transformers, which generates on one GPU alone: {why}. {install}[/]")
    if command != "refine" and cfg.judge.name == "keywords" and cfg.model.language != "micro" and not given & _JUDGE:
        _warn_once("[yellow]refusals are counted by a list of phrases, a cheap proxy; judge=qwen3guard asks a guard model[/]")
    check_engine(cfg)  # again, now that it has a name
    for choice, unread in _unread(cfg, command).items():
        if named := sorted(given & unread):
            say(f"[yellow]{', '.join(named)}: not used by {choice}[/]")


def _told(cfg: Config, key: str, why: str | None) -> str:
    value = value_of(cfg, key)
    return f"{key}={str(value).lower() if isinstance(value, bool) else value}" + (f" ({why})" if why else "")


@cache
def _warn_once(text: str) -> None:
    """Prints a warning that holds for every point of a sweep, the first time."""
    from dgr_lightning.console import say

    say(text)


def _unread(cfg: Config, command: str) -> dict[str, set[str]]:
    """Returns for the chosen engine, strategy and method the keys of its section that it does not read."""

    def outside(section: str, *read: str) -> set[str]:
        return {key for key in keys() if key.startswith(f"{section}.")} - {f"{section}.{name}" for name in read}

    unread = {f"engine={cfg.engine.name}": outside("engine", "name", "precision", *ENGINES.get(cfg.engine.name).reads)}
    if command != "evaluate":
        strategy = STRATEGIES.get(cfg.refine.strategy)
        unread[f"refine={cfg.refine.name or cfg.refine.strategy}"] = outside(
            "refine", "name", "strategy", "options", *strategy.keys
        )
    if command == "train":
        unread[f"tuning={cfg.tuning.method}"] = set(unread_by_method("tuning", cfg.tuning.method))
    return unread
