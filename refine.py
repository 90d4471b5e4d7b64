"""Have a model rewrite a safety set in its own words, and measure how far the set lies from the model before and after.

    python refine.py                                         # the miniature rewrites its DirectRefusal
    python refine.py model=r1-distill-7b data=star1          # a real model, STAR-1
    python refine.py data.path=rows.jsonl refine.tries=4     # rows of your own, up to four tries each
    python refine.py --help

The set lies in runs/<name>/refine-…/refined.jsonl; training the same model on the same set generates nothing again.
"""

from dgr_lightning.cli.scripts import refine

if __name__ == "__main__":
    refine()
