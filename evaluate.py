"""Measure reasoning, refusal and over-refusal of any Hugging Face folder, with intervals.

    python evaluate.py model.path=runs/dgr/<run>/model              # what a run has trained
    python evaluate.py model=qwen3-4b evaluation.limit=50           # a hub model, 50 problems a task
    python evaluate.py model.path=<folder> evaluation.tasks=[gsm8k]
    python evaluate.py --help

Tasks and chat style follow from the folder; every output lies in runs/<name>/evaluate-…/evaluation/.
"""

from dgr_lightning.cli.entry import entry
from dgr_lightning.config import Config
from dgr_lightning.pipeline.place import Place


@entry("evaluate")
def main(cfg: Config, place: Place) -> None:
    """Evaluates the model, or what is missing of it."""
    from dgr_lightning.pipeline import commands

    commands.evaluate(cfg, place)


if __name__ == "__main__":
    main()
