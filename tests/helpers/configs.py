"""A config with a few keys changed, and content hashes to go with it, for tests of what names a run."""

from dgr_lightning.config import Config
from dgr_lightning.pipeline.identity import identify
from dgr_lightning.pipeline.place import Place
from dgr_lightning.pipeline.run_directory import RunDir

CONTENTS = {"model": "m1", "data": "d1", "probes": "p1", "evaluation": "e1"}


def config(**changes) -> Config:
    """Returns a config with dotted keys changed, dots written as double underscores."""
    cfg = Config(name="test")
    cfg.model.name, cfg.data.name, cfg.refine.name = "micro", "star1", "dgr"
    cfg.engine.name, cfg.engine.precision, cfg.trainer.precision = "transformers", "fp32", "fp32"
    cfg.probes.every, cfg.probes.size, cfg.probes.max_new_tokens = 50, 32, 4096
    cfg.probes.temperature, cfg.probes.top_p, cfg.probes.top_k = 0.0, 1.0, 0
    cfg.evaluation.name, cfg.evaluation.tasks = "quick", ["gsm8k"]
    for key, value in changes.items():
        *sections, name = key.split("__")
        node = cfg
        for section in sections:
            node = vars(node)[section]
        assert name in vars(node)
        setattr(node, name, value)
    return cfg


def open_run(
    cfg: Config, place: Place, contents: dict[str, str] = CONTENTS, model_hash: str = "w1", **options: float
) -> RunDir:
    """Opens the directory of a training with this config."""
    return RunDir.open(cfg, identify(cfg, contents), model_hash, place, **options)
