"""Coverage-guided fuzzing of what reads: `make fuzz`, or

    python -m tests.fuzz 60            # every target in turn, a minute in all
    python -m tests.fuzz rows 600      # one of them, for ten minutes

A target is a file of this folder: seeds, and a function of bytes that raises where something other than a UserError comes out,
or where what it read is not what was there. libFuzzer (atheris) changes the seeds so that they reach more of the code. A
finding ends it with an exit code other than 0; the bytes that made it lie in a folder whose name is printed, and

    python -m tests.fuzz rows --replay FILE

runs them again without atheris.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from types import ModuleType

TARGETS = ("rows", "folders", "templates", "overrides", "store")
_SEED = "1"
# Seconds for one input, after which it counts as a hang; MiB of memory; bytes of an input.
_LIMITS = ("-timeout=20", "-rss_limit_mb=4096", "-max_len=4096")


def main(arguments: list[str]) -> int:
    """Runs what the command line asks for and returns the exit code."""
    if len(arguments) == 3 and arguments[1] == "--replay":
        _target(arguments[0]).check(Path(arguments[2]).read_bytes())
        return 0
    names, seconds = (arguments[:-1] or TARGETS), int(arguments[-1])
    if len(names) == 1:
        return _fuzz(names[0], seconds)
    failed = []
    for name in names:
        print(f"=== {name}", flush=True)
        each = [sys.executable, "-m", "tests.fuzz", name, str(max(1, seconds // len(names)))]
        if subprocess.run(each, cwd=Path(__file__).parents[2]).returncode:
            failed.append(name)
    print(f"findings in: {', '.join(failed)}" if failed else "no findings")
    return int(bool(failed))


def _target(name: str) -> ModuleType:
    target = import_module(f"tests.fuzz.{name}")
    from dgr_lightning.console import console  # not before: a target's modules are instrumented as they are imported

    console.quiet = True  # what it says of a run would be said for every input
    return target


def _fuzz(name: str, seconds: int) -> int:
    try:
        import atheris
    except ImportError:
        print("atheris is not installed: requirements-dev.txt has it for Linux on x86-64 and Python below 3.14")
        return 2

    with atheris.instrument_imports(include=["dgr_lightning"]):
        target = _target(name)
    found = Path(tempfile.mkdtemp(prefix=f"dgr-fuzz-{name}-"))
    corpus = found / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(target.SEEDS):
        (corpus / f"seed-{number:03d}").write_bytes(seed)
    print(f"inputs that fail: {found}", flush=True)
    options = [f"-max_total_time={seconds}", f"-artifact_prefix={found}/", f"-seed={_SEED}", "-print_final_stats=1", *_LIMITS]
    atheris.Setup([sys.argv[0], str(corpus), *options], target.check)
    atheris.Fuzz()  # ends the process
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
