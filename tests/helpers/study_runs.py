"""Finished runs as the pipeline leaves them, for tests of what is found over many."""

from pathlib import Path

from dgr_lightning.config import Config
from dgr_lightning.files import write_json, write_jsonl, write_text
from dgr_lightning.pipeline.identity import identify
from dgr_lightning.pipeline.place import Place
from dgr_lightning.pipeline.run_directory import RunDir
from dgr_lightning.report.summary import build_summary
from dgr_lightning.statistics.intervals import Estimate, rate
from dgr_lightning.tasks.metrics import Estimates

BASE_ACCURACY = 0.9


def _estimates(accuracy: float, refusal: float, over_refusal: float) -> Estimates:
    def share(value: float) -> Estimate:
        return rate([[index < round(100 * value)] for index in range(100)])

    return {
        "gsm8k": {"accuracy": share(accuracy)},
        "strongreject": {"refusal_rate": share(refusal)},
        "xstest": {"over_refusal_rate": share(over_refusal)},
    }


def finished_run(
    root: Path,
    arm: str,
    lr: float,
    base: int,
    seed: int,
    accuracy: float,
    *,
    refusal: float = 1.0,
    over_refusal: float = 0.1,
    probe: tuple[float, float, float] | None = None,
    precision: str = "fp32",
    model: str | None = None,
    temperature: float = 0.6,
    fallback: dict[str, int] | None = None,
    num_examples: int = 100,
) -> Path:
    """Writes a finished run into <root>/grid/ and returns its directory.

    Args:
        root: of all runs.
        arm: refinement strategy.
        lr: learning rate.
        base: model seed.
        seed: of the run.
        accuracy: reasoning accuracy of the tuned model; the base's is 0.9.
        refusal: of harmful requests.
        over_refusal: of benign requests.
        probe: reasoning, refusal and over-refusal on the probe split; None: as on the evaluation split.
        precision: of training and generation.
        model: content of the model; None: that of the base.
        temperature: of the refinement.
        fallback: reasons and counts.
        num_examples: examples trained on.
    """
    cfg = Config(name="grid", seed=seed)
    cfg.model.seed = base
    cfg.refine.strategy = cfg.refine.name = arm
    cfg.sft.lr, cfg.refine.temperature = lr, temperature
    cfg.engine.name, cfg.engine.precision, cfg.trainer.precision = "transformers", precision, precision
    content = model or f"miniature {base}"
    with RunDir.open(cfg, identify(cfg, {"model": content, "data": "d"}), content, Place(root)) as run:
        points = Estimate(100 * (BASE_ACCURACY - accuracy), 100 * (0.85 - accuracy), 100 * (0.95 - accuracy), 100)
        figures = {"examples": 100, "refined": 90, "fallback": fallback or {}, "tokens_before": 3000, "tokens_after": 3200}
        parts = {
            "base": _estimates(BASE_ACCURACY, 0.0, 0.0),
            "tuned": _estimates(accuracy, refusal, over_refusal),
            "tax": {"points": points, "relative_percent": points},
            "refinement": figures | {"nll_before": 2.0, "nll_after": 0.5},
        }
        write_jsonl(run.path / "refined.jsonl", [{"id": f"x-{index}"} for index in range(num_examples)])
        write_json(run.path / "summary.json", build_summary(run.hash, {}, **parts))
        ends = [(0.9, 0.0, 0.0), probe or (accuracy, refusal, over_refusal)]
        lines = [f"{step},{','.join(map(str, rates))}" for step, rates in zip((0, 125), ends, strict=True)]
        names = ("reasoning_accuracy", "refusal_rate", "over_refusal_rate")
        header = ",".join(["trainer/global_step", *(f"probe/{name}" for name in names)])
        write_text(run.path / "metrics.csv", "\n".join([header, *lines]) + "\n")
        return run.path
