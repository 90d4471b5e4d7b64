"""Odd templates, lists of phrases and of patterns, and tasks' files: each ends with one message that names the key."""

import json

import pytest

from tests.helpers.odd_inputs import GOOD_ROW

pytestmark = pytest.mark.slow  # a run of the command a row, some hundred rows

TEMPLATES: dict[str, bytes | str] = {
    "empty": "",
    "white space": " \n ",
    "without the trace": "Rewrite {{ question }}",
    "syntax": "{{ trace ",
    "open block": "{% for a in b %}{{ trace }}",
    "unknown tag": "{% shell %}{{ trace }}",
    "unknown filter": "{{ trace | shell }}",
    "unknown test": "{{ trace is shell }}",
    "unknown variable": "{{ trace }}{{ secret }}",
    "class": "{{ trace.__class__.__mro__ }}",
    "class by a filter": "{{ trace | attr('__class__') }}",
    "globals": "{{ cycler.__init__.__globals__ }}{{ trace }}",
    "format with a class": "{{ '{0.__class__}'.format(trace) }}{{ trace | shell }}",
    "includes a file": "{% include '/etc/passwd' %}{{ trace }}",
    "imports": "{% import 'x' as x %}{{ trace }}",
    "extends": "{% extends 'x' %}{{ trace }}",
    "divides by zero": "{{ trace }}{{ 1 / 0 }}",
    "adds text and numbers": "{{ trace + 1 }}",
    "calls a text": "{{ trace() }}",
    "key that is not there": "{{ trace.nothing.more }}",
    "calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ trace }}{{ f() }}",
    "calls itself by caller": "{% macro f() %}{% call f() %}{% endcall %}{% endmacro %}{{ trace }}{{ f() }}",
    "long text": "{{ trace * 10 ** 13 }}",
    "long range": "{% for a in range(10 ** 12) %}{{ trace }}{% endfor %}",
    "nested ranges": "{{ trace }}{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}"
    "{% endfor %}{% endfor %}{% endfor %}",
    "list that grows": "{{ trace }}{% set ns = namespace(x=[1]) %}{% for a in range(999) %}{% set ns.x = ns.x + ns.x %}"
    "{% endfor %}",
    "power": "{{ trace }}{{ 9 ** (9 ** 9) }}",
    "format": "{{ trace }}{{ '%999999999999d' % 1 }}",
    "centre": "{{ trace | center(10 ** 13) }}",
    "deep brackets": "{{ " + "(" * 5000 + "trace" + ")" * 5000 + " }}",
    "deep blocks": "{% if true %}" * 500 + "{{ trace }}" + "{% endif %}" * 500,
    "deep lists": "{{ trace }}{{ " + "[" * 20_000 + " }}",
    "long sum": "{{ trace" + " + trace" * 20_000 + " }}",
    "not UTF-8": b"{{ trace }}\xff",
    "UTF-16": "{{ trace }}".encode("utf-16"),
    "escapes in a name": "{{ trace }}{% \x1b[2J %}",
}
PHRASES: dict[str, bytes | str] = {
    "empty": "",
    "white space": " \n\t\n",
    "comments alone": "# one\n# two\n",
    "marks alone": "***\n___\n",
    "not UTF-8": b"sorry\xff",
    "UTF-16": "sorry".encode("utf-16"),
}
PATTERNS: dict[str, bytes | str] = {
    "empty": "",
    "comments alone": "# one\n",
    "names alone": "{a} = b\n",
    "open bracket": "/(/\n",
    "open set": "/[a/\n",
    "open name": "/(?P<a/\n",
    "unknown escape": r"/\q/" + "\n",
    "nothing repeated": "/*a/\n",
    "repeated repetition": "/a**/\n",
    "repetition backwards": "/a{9,1}/\n",
    "repetition of digits": "/a{99999999999999999999}/\n",
    "unknown name": "/{nobody}/\n",
    "name of itself": "{a} = {a}\n/{a}/\n",
    "matches nothing": "/a*/\n",
    "matches everything": "/|/\n",
    "look-behind of any width": "/(?<=a+)b/\n",
    "group that is not there": r"/\9/" + "\n",
    "flags in the middle": "/a(?i)b/\n",
    "exponential": "/(a+)+!/\n",
    "exponential in words": "/(\\w+)+!/\n",
    "deep brackets": "/" + "(" * 5000 + "a" + ")" * 5000 + "/\n",
    "a name that grows": "{a} = xxxxxxxxxx\n"
    + "".join(f"{{{b}}} = {f'{{{a}}}' * 10}\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    + "/{i}/\n",
    "not UTF-8": b"word\xff",
    "NUL in brackets": "/[\0/\n",
    "escapes": "/(\x1b[2J/\n",
}
KINDS = [
    *(("refine.trace_template", name, TEMPLATES[name]) for name in TEMPLATES),
    *(("judge.phrases", name, PHRASES[name]) for name in PHRASES),
    *(("refine.meta_thinking", name, PATTERNS[name]) for name in PATTERNS),
]


@pytest.mark.parametrize(("key", "content"), [row[::2] for row in KINDS], ids=[f"{key} {name}" for key, name, _ in KINDS])
def test_an_odd_text_file_is_one_message(key, content, world, ends):
    path = world.write("odd.txt", content)
    # A phrase list is read by who judges: an evaluation. The plan of a refinement stops before one.
    command = ["plan=true", f"data.path={world.rows()}"] if key != "judge.phrases" else ["evaluation.limit=1"]
    ends("refine" if key != "judge.phrases" else "evaluate", [f"{key}={path}", *command], parts=(key,))


GSM8K = {"question": "1 + 1 ?", "answer": "#### 2"}
TASKS: dict[str, list[object] | str] = {
    "empty": "",
    "other columns": [{"a": 1}],
    "no gold": [{"question": "1 + 1 ?", "answer": "two"}],
    "gold of a number": [{"question": "1 + 1 ?", "answer": 2}],
    "gold of null": [{"question": "1 + 1 ?", "answer": None}],
    "question of null": [{"question": None, "answer": "#### 2"}],
    "question of a list": [{"question": ["a"], "answer": "#### 2"}],
    "question of white space": [{"question": " ", "answer": "#### 2"}],
    "one bad row": [GSM8K, {"question": "q", "answer": ""}],
    "half a pair": '{"question": "\\ud800", "answer": "#### 2"}\n',
    "deep": '{"question": ' + "[" * 100_000 + "]" * 100_000 + ', "answer": "#### 2"}\n',
    "digits": '{"question": "q", "answer": ' + "9" * 5000 + "}\n",
}


@pytest.mark.parametrize("name", TASKS)
def test_an_odd_file_of_problems_is_one_message(name, world, ends, micro_folder):
    content = TASKS[name]
    path = world.write("gsm8k.jsonl", content) if isinstance(content, str) else world.rows(*content, name="gsm8k.jsonl")
    overrides = ["model=local", f"model.path={micro_folder}", "model.language=natural", "evaluation.tasks=[gsm8k]"]
    ends("evaluate", [*overrides, f"evaluation.path.gsm8k={path}", "evaluation.limit=1", "trainer=cpu"])


EXPERIMENTS = {
    "not YAML": "{",
    "a list": "- a\n",
    "text": "text\n",
    "a key twice": "seed: 1\nseed: 2\n",
    "defaults of text": "defaults: data\n",
    "defaults of numbers": "defaults: [1]\n",
    "defaults of nothing known": "defaults:\n  - override /nothing: x\n",
    "a class": "seed: !!python/object/apply:os.system ['true']\n",
    "an alias of itself": "seed: &a [*a]\n",
    "a date": "# @package _global_\nseed: 2026-01-01\n",
    "a tab": "# @package _global_\n\tseed: 1\n",
    "binary": "# @package _global_\nname: !!binary aGVsbG8=\n",
    "a set": "# @package _global_\nname: !!set {a, b}\n",
    "a number as a key": "# @package _global_\n1: 2\n",
    "an unknown key": "# @package _global_\nsft: {lrr: 1}\n",
    "NUL": "\0",
    "deep": "a: " + "[" * 20_000 + "]" * 20_000,
    "a package that is none": "# @package ...\nseed: 1\n",
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_odd_experiment_of_ones_own_is_one_message(name, world, ends):
    world.write("conf/experiment/mine.yaml", EXPERIMENTS[name])
    outcome = ends("train", ["--config-dir", world.inputs / "conf", "experiment=mine"], main=lambda cfg, place: None)
    assert len(outcome.err) < 2000


def test_the_rows_of_these_tables_differ():
    assert len({json.dumps(GOOD_ROW), *map(str, KINDS)}) == len(KINDS) + 1
