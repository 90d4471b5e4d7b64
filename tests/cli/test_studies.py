"""Studies on the command line: what is refused, and what each run of one is told."""

import pytest

from dgr_lightning.cli.compose import compose
from dgr_lightning.cli.overrides import read_command_line
from dgr_lightning.errors import Incomplete, UserError
from dgr_lightning.experiments import headline

HEADLINE = "experiment=micro-headline"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=qwen3-0.6b", "data=star1"], "bases are miniatures of several seeds; take model=micro"),
        (["study.bases=[0,0]"], r"study.bases=\[0, 0\]: expected a list of different values, such as study.bases"),
        (["study.seeds=[]"], "study.seeds="),
        (["study.lrs=[1e-3,-1]"], "above 0"),
        (["study.precisions=[fp16]"], "no precision fp16; expected bf16, fp32 or both"),
        (["study.bases=[first]"], "study.bases"),
        (["study.name=frontier"], "one of headline, strategies"),
    ],
)
def test_what_is_no_study_is_refused(overrides, message):
    with pytest.raises(UserError, match=message):
        compose("train", [HEADLINE, *overrides])


def test_lists_of_numbers_are_numbers():
    study = compose("train", [HEADLINE, "study.bases=[7,8]", "study.lrs=[1e-3,2]"]).study
    assert (study.bases, study.lrs) == ([7, 8], [1e-3, 2.0])


def test_runs_get_every_override_but_the_studys_own():
    line = read_command_line([HEADLINE, "study.bases=[1]", "name=mine", "data.limit=48", "refine.tries=2"], "train")
    assert line.of_each_run() == ["data.limit=48", "refine.tries=2"]


def test_a_study_runs_instead_of_the_stages_and_its_gaps_end_with_1(run_script, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(
        headline, "run", lambda cfg, overrides, command: calls.append((cfg.name, command)) or cfg.study.bases != [9]
    )
    code, seen = run_script(HEADLINE, "data.limit=48")
    assert (code, seen, calls) == (0, [], [("headline", "python train.py experiment=micro-headline data.limit=48")])
    code, _ = run_script(HEADLINE, "study.bases=[9]")
    error = capsys.readouterr().err
    assert code == 1 and "some runs of runs/headline failed or are missing" in error and "Traceback" not in error
    assert issubclass(Incomplete, Exception)
    assert calls[-1][1] == "python train.py experiment=micro-headline study.bases=[9]"
    code, _ = run_script("-m", HEADLINE, "seed=1,2")
    assert code == 2 and "a study sweeps by itself; run it without -m" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("mine", "instead"),
    [
        ("seed=1", "study.seeds"),
        ("model.seed=1", "study.bases"),
        ("refine=sdft", "leave it out"),
        ("overwrite=true", "delete their folder"),
        ("probes.every=0", "leave it out"),
        ("engine.precision=fp32 trainer.precision=bf16", "takes one for both"),
    ],
)
def test_keys_that_a_study_has_no_use_for_are_refused(run_script, capsys, mine, instead):
    code, seen = run_script(HEADLINE, *mine.split())
    error = capsys.readouterr().err
    assert (code, seen) == (2, []) and "study.name=headline" in error and instead in error
