"""Parts of a proof that fail, for tests: one hangs, one is killed with a child of its own, one raises, and one is well."""

import os
import signal
import subprocess
from time import sleep


def hang(setup):
    yield {"case": "before it hangs"}
    sleep(600)


def die(setup):
    child = subprocess.Popen(["sleep", "600"])
    yield {"case": "before it dies", "child": child.pid}
    os.kill(os.getpid(), signal.SIGKILL)


def fail(setup):
    yield {"case": "before it fails"}
    raise RuntimeError("CUDA error: an illegal memory access")


def succeed(setup):
    yield {"case": "well", "dry": setup.dry, "device": str(setup.device)}
