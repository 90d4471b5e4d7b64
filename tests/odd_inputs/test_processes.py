"""A sample of the odd inputs in processes of their own, as a user meets them."""

import json
import subprocess
import sys

import pytest

from tests.helpers.odd_inputs import GOOD_ROW, SECONDS, Outcome, check_ending, check_nothing_lost
from tests.helpers.runs import ROOT, environment

SAMPLE = {
    "digits on the command line": ("train", ["seed=" + "9" * 5000], 2),
    "bytes that are no text": ("train", [b"data.path=\xff.jsonl"], 2),
    "escapes": ("refine", ["plan=true", "data.path='/no/\x1b]0;title\x07.jsonl'"], 2),
    "a sweep without an end": ("train", ["-m", "seed=range(1,inf)"], 2),
    "a class for a launcher": ("train", ["-m", "hydra.launcher._target_=os.system", "seed=1"], 2),
    "deep rows": ("refine", ["plan=true", "data.path=deep.jsonl"], 2),
    "half a pair": ("refine", ["plan=true", "data.path=half.jsonl"], 2),
    "ids that are paths": ("refine", ["plan=true", "data.path=paths.jsonl", "data.fields.id=id"], 0),
    "a template that never ends": ("refine", ["plan=true", "refine.trace_template=endless.jinja"], 2),
    "a pattern that never ends": ("refine", ["plan=true", "refine.meta_thinking=endless.txt"], 2),
    "a pipe for rows": ("refine", ["plan=true", "data.path=/dev/stdin"], 2),
    "an empty model": ("evaluate", ["model.path=empty"], 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLE)
def test_an_odd_input_in_a_process_of_its_own(name, world):
    (world.cwd / "deep.jsonl").write_text('{"a": ' + "[" * 200_000 + "]" * 200_000 + "}\n")
    (world.cwd / "half.jsonl").write_text('{"prompt": "\\ud800", "trace": "t", "answer": "a"}\n')
    (world.cwd / "paths.jsonl").write_text(json.dumps({"id": "../../x", **GOOD_ROW}) + "\n")
    blocks = [f"{{% for {name} in range(99999) %}}" for name in "abc"]
    (world.cwd / "endless.jinja").write_text("{{ trace }}" + "".join(blocks) + "{% endfor %}" * 3)
    (world.cwd / "endless.txt").write_text("/(a+)+!/\n")
    (world.cwd / "empty").mkdir()
    command, arguments, code = SAMPLE[name]
    before = world.state()
    done = subprocess.run(
        [sys.executable, str(ROOT / f"{command}.py"), *arguments],
        cwd=world.cwd,
        env=environment(world.cache) | {"HOME": str(world.home), "TMPDIR": str(world.temporary)},
        stdin=subprocess.PIPE,
        capture_output=True,
        timeout=4 * SECONDS,
    )
    check_ending(Outcome(done.returncode, done.stdout.decode(), done.stderr.decode()), code)
    check_nothing_lost(before, world.state())
