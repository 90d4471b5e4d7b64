"""Runs a script of the project as if its disk had room when it was asked: what fills a disk later is not known then.

`python tests/helpers/filled_later.py train.py …`
"""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).parent)

    from dgr_lightning.pipeline import disk_room

    disk_room.free_bytes = lambda path: 2**60
    runpy.run_path(sys.argv[0], run_name="__main__")
