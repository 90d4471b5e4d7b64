"""Names that no file system, no terminal or no W&B takes: one message, exit code 2, before anything is located or loaded."""

import json
import os

import pytest

LONG = "n" * 300
WIDE = "🦙" * 200

REFUSED = {
    "long name": ([f"name={LONG}"], ["name=nnnn", "…", "300 characters"]),
    "long data.name": ([f"data.name={LONG}"], ["data.name=nnnn", "…", "300 characters"]),
    "long model.name": ([f"model.name={LONG}"], ["model.name=nnnn"]),
    "long refine.name": ([f"refine.name={LONG}"], ["refine.name=nnnn"]),
    "long evaluation.name": ([f"evaluation.name={LONG}"], ["evaluation.name=nnnn"]),
    "200 letters of 4 bytes": ([f"data.name='{WIDE}'"], ["data.name=🦙", "255 bytes"]),
    "long together": ([f"{part}.name={'n' * 100}" for part in ("data", "model", "refine")], ["directory", "255"]),
    "wide name": (["name='größe'"], ["name=größe: it becomes a directory"]),
    "control characters": (['data.name="a\x1b]0;owned\x07"'], ["data.name=a\\x1b]0;owned", "printable"]),
    "bidi override": (["refine.name='a\u202eb'"], ["refine.name=a\\u202eb", "printable"]),
    "line feed": (['model.name="a\nb"'], ["model.name=a\\nb", "printable"]),
    "part of a mixture": (
        [f"data.mix=[{{data: micro-r1act, share: 0.5, name: {LONG}}}, {{data: micro-directrefusal, share: 0.5}}]"],
        ["data.mix[0].name=nnnn"],
    ),
    "long project": (["logger=wandb", f"logger.project={LONG}"], ["logger.project=nnnn", "128"]),
    "project with a slash": (["logger=wandb", "logger.project=a/b"], ["logger.project=a/b", "without /"]),
    "long entity": (["logger=wandb", f"logger.entity={LONG}"], ["logger.entity=nnnn", "128"]),
    "long group": (["logger=wandb", f"logger.group={LONG}"], ["logger.group=nnnn", "128"]),
    "name too long for W&B": (["logger=wandb", f"name={'n' * 120}"], ["name=nnnn", "115 characters"]),
    "long run directory": ([f"hydra.run.dir=runs/{LONG}"], ["hydra.run.dir: nnnn", "300 bytes"]),
    "long data.path": ([f"data.path={LONG}.jsonl"], ["data.path=nnn", "no such file"]),
    "long model.path": ([f"model.path={LONG}"], ["model.path=nnn", "no such folder"]),
    "long template": ([f"refine.trace_template={LONG}"], ["refine.trace_template=nnn", "no such file"]),
    "long phrases": ([f"judge.phrases={LONG}"], ["judge.phrases=nnn", "no such file"]),
    "long embedding": ([f"shift.embedding={LONG}"], ["shift.embedding=nnn", "no such folder"]),
    "nobody's home": (
        ["data.path='~nobody-of-this-name/a.jsonl'"],
        ["data.path=~nobody-of-this-name/a.jsonl", "no such"],
    ),
    "a model in nobody's home": (["model.path='~nobody-of-this-name/m'"], ["model.path=~nobody", "no such folder"]),
    "phrases from a device": (["judge.phrases=/dev/zero"], ["judge.phrases=/dev/zero: neither a file nor a folder"]),
    "a template from a device": (["refine.trace_template=/dev/zero"], ["neither a file nor a folder"]),
    "rows from a device": (["data.path=/dev/zero", "data=local", "data.language=micro"], ["data.path=/dev/zero: neither"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_called_or_read_is_refused_with_one_message(case, run_script, capsys):
    arguments, named = REFUSED[case]
    code, reached = run_script(*arguments)
    shown = capsys.readouterr().err
    assert (code, reached) == (2, []) and "Traceback" not in shown
    assert [part for part in named if part not in shown] == [], shown
    assert shown.startswith("error: ") and "\x1b" not in shown and len(shown) < 1500


def test_rows_from_a_pipe_are_refused_and_not_waited_for(tmp_path, run_script, capsys):
    os.mkfifo(tmp_path / "rows.jsonl")
    code, reached = run_script(f"data.path={tmp_path}/rows.jsonl", "data.language=micro")
    assert (code, reached) == (2, []) and "neither a file nor a folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a", "n" * 255, "r1act_v2.1-x"])
def test_names_that_files_can_have_go_through(name, run_script):
    assert run_script(f"name={name}")[0] == 0


@pytest.mark.parametrize("marks", ["[bold]x[/]", "[/]", "[link=file:///etc/passwd]x[/link]", "\\"])
def test_marks_of_the_terminals_own_markup_are_shown_as_they_are(marks, tmp_path, capsys):
    from dgr_lightning.config import DataConfig, FieldsConfig
    from dgr_lightning.data.sources import load_examples

    rows = [
        {"id": f"{marks}{n}", "prompt": "p", "response": "t</think>a", "label": marks if n else "harmful"} for n in range(3)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = DataConfig(name=marks, path=str(tmp_path / "rows.jsonl"), fields=FieldsConfig(id="id"))
    assert len(load_examples(data, seed=1).examples) == 1
    assert f"{marks}: 3 rows" in capsys.readouterr().out
