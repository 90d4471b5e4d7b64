"""Compare finished runs: every pair of models on the problems that both were given, with paired intervals.

    python compare.py runs/dgr/<vanilla run> runs/dgr/<dgr run>     # what refinement changes
    python compare.py RUN RUN RUN out=comparison                    # any number of runs, files in a folder of their own
    python compare.py --help

Tables in the terminal; comparison.html, comparison.json and figures/ in the folder.
"""

from dgr_lightning.cli.scripts import compare

if __name__ == "__main__":
    compare()
