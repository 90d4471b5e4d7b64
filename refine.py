"""Have a model rewrite a safety set in its own words, and measure how far the set lies from the model before and after.

    python refine.py                                         # the miniature rewrites its DirectRefusal
    python refine.py model=r1-distill-7b data=star1          # a real model, STAR-1
    python refine.py data.path=rows.jsonl refine.tries=4     # rows of your own, up to four tries each
    python refine.py --help

The set lies in runs/<name>/refine-…/refined.jsonl; training the same model on the same set generates nothing again.
"""

from dgr_lightning.cli.entry import entry
from dgr_lightning.config import Config
from dgr_lightning.pipeline.place import Place


@entry("refine")
def main(cfg: Config, place: Place) -> None:
    """Runs the stages up to the refined set, or what is missing of them."""
    from dgr_lightning.pipeline import commands

    commands.refine(cfg, place)


if __name__ == "__main__":
    main()
