"""Refine a safety set with the target model itself, train on it, and measure what that cost.

    python train.py                                              # the miniature that comes with the package
    python train.py refine=vanilla                               # the same without refinement: the safety tax
    python train.py -m refine=vanilla,dgr seed=1,2               # a sweep, one directory a point
    python train.py model=r1-distill-7b data=r1act refine=dgr    # the real thing, on a GPU
    python train.py --help

The run lies in runs/<name>/. The same command again resumes it, or shows it when it is done.
"""

from dgr_lightning.cli.scripts import train

if __name__ == "__main__":
    train()
