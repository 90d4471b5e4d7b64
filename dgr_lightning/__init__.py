"""Safety tuning of reasoning models on data that the target model has refined itself (DGR, arXiv 2602.02136).

`ls` of this folder is the table of contents, docs/architecture.md draws the way of the data through it, and `make check` holds
the direction of the imports. `import dgr_lightning` imports nothing heavy; it sets how torch's threads wait (`threads`) and how
it takes a GPU's memory (`cuda_allocator`), which has to be in the environment before torch is loaded, in every process that the
project starts.
"""

from dgr_lightning.cuda_allocator import expand_segments
from dgr_lightning.threads import spin_shortly

__version__ = "0.7.0"

spin_shortly()
expand_segments()
