"""How torch's allocator takes memory of a GPU.

Rows of a training differ in length from step to step. In segments of fixed size, what one row leaves behind is too small for
the next, and a training runs out of memory while gigabytes are free; segments that grow avoid that. They are no good for vLLM:
its all-reduce shares buffers between processes by a call that takes memory of fixed segments alone, and the engine dies with
"invalid argument" (vllm-project/vllm issue 42609).
"""

from __future__ import annotations

import os

VARIABLES = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
"""What torch reads, the first that is set; a user who has set one of them has chosen."""

_EXPANDABLE, _FIXED = "expandable_segments:True", "expandable_segments:False"


def expand_segments() -> None:
    """Has the allocator of this process, and of those that it starts, take segments that grow; call it before CUDA starts."""
    if not any(name in os.environ for name in VARIABLES):
        os.environ[VARIABLES[0]] = _EXPANDABLE


def fixed_segments() -> dict[str, str]:
    """Returns the variables that undo `expand_segments` in a process that is started; none where the user has chosen."""
    return {VARIABLES[0]: _FIXED} if os.environ.get(VARIABLES[0]) == _EXPANDABLE else {}
