"""Odd command lines: values, keys, quotes, interpolations, sweeps, paths. Each ends with one message, before any work.

A row is a command line, an argument each; the few that are in truth fine are in `FINE`, with the reason.
"""

import os
import socket
from pathlib import Path

import pytest

from tests.helpers.odd_inputs import run

pytestmark = pytest.mark.slow  # a run of the command a row, some two hundred rows

NESTED = "[" * 3000 + "]" * 3000
DIGITS = "9" * 5000

ODD: dict[str, list[str]] = {
    # numbers
    "nan": ["sft.lr=nan"],
    "infinite": ["sft.lr=inf"],
    "minus infinite": ["refine.temperature=-inf"],
    "infinite tokens": ["refine.max_new_tokens=inf"],
    "negative limit": ["data.limit=-5"],
    "zero samples": ["evaluation.samples=0"],
    "5,000 digits": [f"seed={DIGITS}"],
    "5,000 digits in a list": [f"study.seeds=[{DIGITS}]"],
    "minus 5,000 digits": [f"data.limit=-{DIGITS}"],
    "huge exponent": ["sft.max_steps=1e999"],
    "huge whole number as a float": ["sft.max_steps=1e300x"],
    "two to the 64": ["seed=18446744073709551616"],
    "half a step": ["sft.max_steps=0.5"],
    "full-width digits": ["data.limit=１２x"],
    "hexadecimal": ["data.limit=0x10"],
    "a share of nan": ["data.benign_ratio=nan"],
    "true for a number": ["sft.lr=true"],
    "yes for a switch": ["overwrite=yes"],
    "number for a switch": ["overwrite=1"],
    "null for a number": ["sft.batch_size=null"],
    "null for a switch": ["plan=null"],
    # kinds
    "a list for a number": ["sft.lr=[1e-3]"],
    "a mapping for a number": ["sft.lr={a:1}"],
    "a mapping for a list": ["evaluation.tasks={a:1}"],
    "a list for a mapping": ["evaluation.path=[a]"],
    "a list for a section": ["sft=[1,2]"],
    "null for a section": ["sft=null"],
    "null for the trainer": ["trainer.devices={}"],
    "a list in a list": ["evaluation.tasks=[[micro-short]]"],
    "a mapping in a list": ["evaluation.tasks=[{a:b}]"],
    "null in a list": ["evaluation.tasks=[null]"],
    "number in a list of names": ["evaluation.tasks=[1]"],
    "deep list": [f"evaluation.tasks={NESTED}"],
    "deep list for a number": [f"sft.lr={NESTED}"],
    "deep mapping": ["data.keep=" + "{a:" * 400 + "1" + "}" * 400],
    "deep brackets in quotes": ["model.template_args={a:'" + "[" * 5000 + "'}", "model.chat_style=nothing"],
    "mapping in a mapping of texts": ["data.keep={a:{b:c}}"],
    "list as a value of a mapping": ["evaluation.path.micro-short=[a]"],
    "number as a key": ["data.keep={1:2,1:3}", "plan=maybe"],
    "two betas of text": ["sft.betas=[a,b]"],
    "a thousand betas": ["sft.betas=[" + ",".join(["0.9"] * 1000) + "]"],
    "a thousand tasks": ["evaluation.tasks=[" + ",".join(f"t{n}" for n in range(1000)) + "]"],
    # text
    "empty": [""],
    "blank": ["   "],
    "equals alone": ["="],
    "no key": ["=1"],
    "a blank key": [" =1"],
    "a key of dots": ["...=1"],
    "a dot at the end": ["sft.=1"],
    "a dot at the beginning": [".sft.lr=1"],
    "two dots": ["sft..lr=1"],
    "slashes": ["///=1"],
    "a key with letters beyond ASCII": ["größe=1"],
    "a column with letters beyond ASCII": ["data.keep.größe=x"],
    "a folder of nobody's": ["--config-dir", "~nobody-of-that-name/conf", "experiment=x"],
    "a value with letters beyond ASCII": ["refine.on_failure=größe"],
    "an emoji": ["name=🙂"],
    "right-to-left": ["name=\u202egnp"],
    "zero width": ["name=a\u200bb"],
    "half a surrogate pair": ["name=\udcff"],
    "half a surrogate pair as a path": ["data.path=\udcff.jsonl"],
    "half a surrogate pair as a key": ["\udcff=1"],
    "escape sequence in a name": ["name=a\x1b]0;title\x07"],
    "escape sequence in a key": ["\x1b[31mred=1"],
    "escape sequence in a path": ["data.path=/no/\x1b[2J.jsonl"],
    "escape sequence in a choice": ["model=\x1b[2J"],
    "line break in a name": ["name=a\nb"],
    "line break in a path": ["data.path=a\nb.jsonl"],
    "carriage return": ["name=a\rb"],
    "a tab": ["name=a\tb"],
    "markup of the terminal": ["name=[bold]x[/]"],
    "markup in quotes": ["name='[/bold]'"],
    "markup as a key": ["[red]=1"],
    "open quote": ["name='a"],
    "open double quote": ['name="a'],
    "quotes side by side": ["name='a''b'"],
    "open bracket": ["evaluation.tasks=[a"],
    "closing bracket": ["evaluation.tasks=a]"],
    "open brace": ["data.keep={a"],
    "backslash at the end": ["name=a\\"],
    "percent": ["name=%s%n"],
    "braces of format": ["name='{0.__class__}'"],
    "a name of 300 letters": ["name=" + "a" * 300],
    "a name of dots": ["name=.."],
    "a name of a blank": ["name=' '"],
    "a name of slashes": ["name='a/b'"],
    "a data name of 300 letters": ["data.name=" + "a" * 300],
    "a value of 100,000 letters": ["refine.on_failure=" + "a" * 100_000],
    "a key of 10,000 letters": ["a" * 10_000 + "=1"],
    "a choice of 10,000 letters": ["model=" + "m" * 10_000],
    "a choice that is a path": ["model=../model/micro"],
    "a choice with a suffix": ["model=micro.yaml"],
    "an absolute choice": ["model=/etc/passwd"],
    "several choices": ["model=[micro,qwen3-4b]"],
    "the same key twice": ["sft.lr=1e-3", "sft.lr=2e-3", "sft.epochs=0"],
    # what Hydra takes and this project does not
    "deletion of a group": ["~model"],
    "deletion with a value": ["~sft.lr=1"],
    "an added group": ["+model@other=micro"],
    "a package": ["data@_global_=star1"],
    "the schema as a group": ["schema=x"],
    "defaults": ["defaults=[]"],
    "hydra itself": ["hydra=x"],
    "another searchpath": ["hydra.searchpath=[file:///nowhere]", "model=nowhere"],
    "a launcher that is not there": ["-m", "hydra/launcher=slurm", "seed=1,2"],
    "a sweeper that is not there": ["-m", "hydra/sweeper=optuna2", "seed=1,2"],
    "a sweeper by its class": ["-m", "hydra.sweeper._target_=os.system", "seed=1,2"],
    "a class of Hydra's own": ["hydra.launcher._target_=os.system", "-m", "seed=1,2"],
    "a flag that is none": ["--rm", "-rf"],
    "a flag without its value": ["--config-dir"],
    "an info that is none": ["--info", "nothing"],
    "a completion that is none": ["--shell-completion"],
    "a package flag": ["--cfg", "job", "--package", "nothing.there"],
    # interpolations
    "the environment": ["name=${oc.env:HOME}"],
    "the environment, not set": ["sft.lr=${oc.env:NOT_SET_ANYWHERE}"],
    "a resolver that is not there": ["sft.lr=${shell:ls}"],
    "a loop of two": ["sft.lr=${sft.warmup_ratio}", "sft.warmup_ratio=${sft.lr}"],
    "a loop with itself": ["name=${name}"],
    "an open interpolation": ["name=${"],
    "an empty interpolation": ["name=${}"],
    "an interpolation of nothing": ["name=${.....}"],
    "a nested interpolation": ["name=${oc.env:${oc.env:HOME}}"],
    "two hundred interpolations, nested": ["name=" + "${a." * 200 + "}" * 200],
    "an interpolation of a section": ["name=${sft}"],
    "an interpolation of everything": ["sft.lr=${oc.create:{a:1}}"],
    "an interpolation of a section for itself": ["sft=${sft}"],
    "a missing value": ["sft.lr=???"],
    "a missing value for a section": ["sft=???"],
    "an interpolated folder": ["hydra.run.dir=${nothing}"],
    "an interpolated choice": ["model=${oc.env:HOME}"],
    # sweeps
    "a sweep of nothing": ["-m", "seed="],
    "a sweep of an empty value": ["-m", "seed=1,"],
    "a sweep over a range to infinity": ["-m", "seed=range(1,inf)"],
    "a sweep by steps of zero": ["-m", "seed=range(1,3,0)"],
    "a sweep that goes backwards": ["-m", "seed=range(3,1)"],
    "a sweep over halves without an end": ["-m", "refine.temperature=range(0.5,inf,0.5)"],
    "a sweep over not a number": ["-m", "seed=range(nan,3)"],
    "a sweep by a function that is none": ["-m", "seed=system(1)"],
    "a sweep over an interval": ["-m", "seed=interval(1,3)"],
    "a sweep over a choice of nothing": ["-m", "seed=choice()"],
    "a sweep of choices, one bad": ["-m", "model=micro,macro"],
    "glob over nothing": ["-m", "model=glob(x*)"],
    "a sweep into nothing": ["-m", "hydra.sweep.dir=", "seed=1,2"],
    "a sweep without -m": ["seed=range(1,3)"],
    "a sort without -m": ["seed=sort(3,1)"],
    "a cast": ["sft.lr=int(a)"],
    "a cast of nothing": ["sft.lr=float()"],
    # parts of a mixture
    "a mixture of itself": ["data.mix=${data.mix}"],
    "a mixture of nothing": ["data.mix=[]", "data=mix"],
    "a mixture of null": ["data.mix=[null]"],
    "a mixture of empty parts": ["data.mix=[{}]"],
    "a share of text": ["data.mix=[{data:micro-r1act,share:lots}]"],
    "a share of nan in a mixture": ["data.mix=[{data:micro-r1act,share:nan}]"],
    "a share of a list": ["data.mix=[{data:micro-r1act,share:[1]}]"],
    "a part of a number": ["data.mix=[{data:3,share:1}]"],
    "a part of a list": ["data.mix=[{data:[micro-r1act],share:1}]"],
    "a part that is a path": ["data.mix=[{data:../data/micro-r1act,share:1}]"],
    "fields of a number": ["data.mix=[{data:micro-r1act,share:1,fields:3}]"],
    "fields of a list": ["data.mix=[{data:micro-r1act,share:1,fields:[a]}]"],
    "keep of a number": ["data.mix=[{data:micro-r1act,share:1,keep:3}]"],
    "keep of a mapping": ["data.mix=[{data:micro-r1act,share:1,keep:{a:{b:c}}}]"],
    "a name of a list": ["data.mix=[{data:micro-r1act,share:1,name:[a]}]"],
    "a key of a number": ["data.mix=[{1:2,data:micro-r1act,share:1}]"],
    "a thousand parts": ["data.mix=[" + ",".join(["{data:micro-r1act,share:1}"] * 300) + "]"],
    "a label list that is a path": ["data.mix=[{data:micro-r1act,share:1,label_list:../../x}]", "plan=true"],
    # the keys that name a text, a place or a member
    "think marks alike": ["model.chat_style=marks", "model.think_marks=[a,a]"],
    "one think mark": ["model.chat_style=marks", "model.think_marks=[a]"],
    "blank think marks": ["model.chat_style=marks", "model.think_marks=[' ','']"],
    "template arguments of a list": ["model.template_args=[1]"],
    "layers backwards": ["tuning=lora", "tuning.layers=9-1"],
    "layers of a huge number": ["tuning=lora", f"tuning.layers={DIGITS}-{DIGITS}1x"],
    "a strategy of nobody": ["refine.strategy=nobody:Strategy"],
    "a strategy without a class": ["refine.strategy=os:"],
    "a strategy that is a function": ["refine.strategy=os:system"],
    "a strategy that is a module": ["refine.strategy=:x"],
    "a judge that is a function": ["judge.name=os:getcwd"],
    "a task that is a function": ["evaluation.tasks=[os:getcwd]"],
    "an optimizer that is a function": ["sft.optimizer=os:getcwd"],
    "an engine of nobody": ["engine.name=nobody:ENGINE"],
    "an option of a strategy without any": ["refine.options.a=1"],
    "an address that is none": ["engine=server", "engine.url=not an address"],
    "an address of a file": ["engine=server", "engine.url=file:///etc/passwd"],
    "an address with a port of letters": ["engine=server", "engine.url=http://localhost:port/v1"],
    "an address with half a bracket": ["engine=server", "engine.url=http://[::1/v1"],
    "a hub id of a path": ["model.hub_id=../../etc"],
    "a hub id of blanks": ["model.hub_id='  '"],
    "a hub id with escapes": ["data.hub_id=a/\x1b[2J"],
    "a data hub id of a path": ["data.hub_id=../../etc/passwd"],
    "a commit that is a path": ["model.hub_id=a/b", "model.revision=../../x"],
    "a study of nothing": ["study.name=micro-headline", "study.bases=[]"],
    "a study that is none": ["study.name=nothing"],
}

FINE = {
    "minus zero": ["seed=-0"],
    "a number with lines under": ["seed=1_0"],
    "a share of zero": ["data.benign_ratio=0.0"],
    "an empty section": ["sft={}"],
    "a value of null where it may be": ["data.limit=null"],
    "the same value twice": ["sft.lr=1e-3", "sft.lr=1e-3"],
    "a name in full-stop style": ["name=a.b-c_d"],
    "an environment variable that is a name": ["name=${oc.env:DGR_NAME}"],
    "a sweep of one": ["-m", "seed=1"],
    "overrides on both sides of a flag": ["refine=vanilla", "-m", "seed=1", "hydra.sweep.dir=runs/x"],
    "a sweep that is shuffled": ["-m", "seed=shuffle(1,2)"],
}


def nothing(cfg, place):
    """Stands for the work."""


@pytest.mark.parametrize("name", ODD)
def test_an_odd_command_line_is_one_message(name, ends):
    # A sweep lays out its own two folders before Hydra has read all of the command line.
    places = ("cache/sweeps", "cwd/runs/multirun.yaml") if "-m" in ODD[name] else ()
    outcome = ends("train", ODD[name], main=nothing, places=places)
    assert len(outcome.err.splitlines()) <= 12


def test_a_sweep_of_bad_points_alone_has_a_message_for_each(world, capsys):
    outcome = run("train", ["-m", "seed=-1,-2", "sft.lr=7"], capsys, nothing)
    assert outcome.code == 2 and "Traceback" not in outcome.err
    assert outcome.err.count("error: seed=-") == 2 and "2 of 2 points failed" in outcome.err


@pytest.mark.parametrize("name", FINE)
def test_an_odd_command_line_that_is_fine(name, ends, monkeypatch):
    monkeypatch.setenv("DGR_NAME", "of-the-environment")
    ends("train", FINE[name], 0, main=nothing)


# --- Paths ------------------------------------------------------------------------------------------------------------------

KEYS = {
    "data.path": "refine",
    "model.path": "refine",
    "refine.trace_template": "refine",
    "refine.meta_thinking": "refine",
    "judge.phrases": "refine",
    "evaluation.path.micro-gsm": "evaluate",
    "shift.embedding": "refine",
}


def fifo(path):
    os.mkfifo(path)


def under_a_file(path):
    path.parent.parent.mkdir(exist_ok=True)
    path.parent.write_text("a file")


def unix_socket(path):
    there = Path.cwd()
    os.chdir(path.parent)  # the address of a socket may have 107 characters
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)
    os.chdir(there)


PLACES = {
    "missing": None,
    "folder": lambda path: path.mkdir(),
    "folder of nothing known": lambda path: (path.mkdir(), (path / "note").write_text("x")),
    "empty file": lambda path: path.touch(),
    "fifo": fifo,
    "socket": unix_socket,
    "broken link": lambda path: path.symlink_to("nowhere"),
    "loop of links": lambda path: path.symlink_to(path.name),
    "file as a folder": under_a_file,
}
TOLD = {
    "too long": "/tmp/" + "a" * 5000 + ".jsonl",
    "a name too long": "/tmp/" + "a" * 300 + ".jsonl",
    "nobody's home": "~nobody-of-that-name/rows.jsonl",
    "NUL": "rows\0.jsonl",
    "device without end": "/dev/zero",
    "device of nothing": "/dev/null",
    "memory of the process": "/proc/self/mem",
    "a blank": " ",
    "a dot": ".",
    "the root": "/",
}


FOR_EVERY_KEY = ("missing", "folder", "fifo", "loop of links", "device without end", "NUL")
CASES = [(key, kind) for key in KEYS for kind in (*PLACES, *TOLD) if key == "data.path" or kind in FOR_EVERY_KEY]


@pytest.mark.parametrize(("key", "kind"), CASES, ids=map(" ".join, CASES))
def test_an_odd_path_is_one_message(key, kind, world, ends):
    if key.startswith("evaluation"):
        overrides = ["model=qwen3-0.6b", "evaluation.tasks=[gsm8k]"]
        key = "evaluation.path.gsm8k"
        command = "evaluate"
    else:
        overrides, command = ["plan=true"], "refine"
        if key != "data.path":
            overrides.append(f"data.path={world.rows()}")
    if kind in TOLD:
        path = TOLD[kind]
    else:
        place = world.inputs / ("file/rows.jsonl" if kind == "file as a folder" else "odd.jsonl")
        path = str(place)
        if (make := PLACES[kind]) is not None:
            make(place)
    ends(command, [f"{key}='{path}'", *overrides])
