"""What is written of a part, over the YAML of its data choice, becomes a typed source; a mixture needs no data=."""

import pytest
import yaml

from dgr_lightning.cli.compose import compose
from dgr_lightning.cli.entry import run
from dgr_lightning.config import FieldsConfig
from dgr_lightning.data.sources import load_examples
from dgr_lightning.errors import UserError

MICRO = (
    "data.mix=[{data: micro-directrefusal, share: .6}, {data: micro-r1act, kind: benign, share: .3}, "
    "{data: micro-retention, kind: retention, share: .1}]"
)
NATURAL = "model=qwen3-0.6b"


def parts(*written: str):
    return compose("train", [NATURAL, f"data.mix=[{', '.join(written)}]"]).data.mix


def test_a_mixture_selects_the_choice_that_has_no_rows_of_its_own():
    data = compose("train", [MICRO, "data.limit=20"]).data
    assert (data.name, data.language, data.limit) == ("mix", "micro", 20)
    assert (data.recipe, data.fields, data.benign_ratio) == (None, FieldsConfig(), 0)
    assert [(part.name, part.kind, part.share) for part in data.mix] == [
        ("micro-directrefusal", "harmful", 0.6),
        ("micro-r1act", "benign", 0.3),
        ("micro-retention", "retention", 0.1),
    ]
    alone = compose("train", []).data
    assert data.mix[0].fields == alone.fields and data.mix[0].recipe == alone.recipe


def test_keys_of_a_part_lie_over_those_of_its_choice(rows):
    (one,) = parts("{data: safechain, share: 1, keep: {label: adversarial_harmful}, first: 20, split: test, name: hard}")
    choice = compose("train", [NATURAL, "data=safechain"]).data
    assert (one.keep, one.first, one.split, one.name) == ({"label": "adversarial_harmful"}, 20, "test", "hard")
    assert one.fields == choice.fields and one.hub_id == choice.hub_id
    (one,) = parts("{data: safechain, share: 1, keep: null, fields: {labels: {new: benign}, label: kind}}")
    assert one.keep == {} and one.fields.labels == choice.fields.labels | {"new": "benign"} and one.fields.label == "kind"
    (one,) = parts(f"{{data: star1, share: 1, path: {rows}, label_list: null}}")
    assert (one.path, one.hub_id, one.label_list, one.fields.prompt) == (str(rows), None, None, "question")
    (one,) = parts("{data: star1, share: 1, hub_id: owner/other}")
    assert (one.hub_id, one.revision) == ("owner/other", None)


@pytest.mark.parametrize("written", ["data.mix={data: micro-r1act}", "data.mix.0.share=0.5", "data.mix=star1"])
def test_parts_are_written_as_a_whole(written):
    with pytest.raises(UserError, match=r"parts are written as a whole, in one list: data\.mix="):
        compose("train", [NATURAL, written])


def test_yaml_that_cannot_be_read_is_one_message(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "broken.yaml").write_text("name: [")
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "text.yaml").write_text("# @package _global_\ndata: star1\n")
    mix = "data.mix=[{data: broken, share: 1}]"
    for arguments in (["experiment=text"], [NATURAL, mix]):
        assert run(lambda cfg, place: None, "train", [f"--config-dir={tmp_path}", *arguments]) == 2
        error = capsys.readouterr().err
        assert "Traceback" not in error and error.startswith("error: ")


def test_a_benign_part_takes_the_source_of_benign_rows_that_its_choice_names():
    star, chain, act = parts(
        "{data: star1, kind: benign, share: .2}",
        "{data: safechain, kind: benign, share: .2}",
        "{data: r1act, kind: benign, share: .6}",
    )
    assert (star.name, star.hub_id, star.label_list) == ("star1-benign", "UCSC-VLAA/STAR-benign-915", None)
    assert (chain.name, chain.hub_id, chain.keep, chain.first) == (
        "safechain-benign",
        "UWNSL/SafeChain",
        {"label": "vanilla_benign"},
        None,
    )
    assert (act.name, act.hub_id) == ("r1act", "Yeonjun/R1-Act-train")


def test_different_sources_of_one_name_are_numbered_and_one_source_keeps_its_name(rows, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text(rows.read_text())
    (tmp_path / "folder").mkdir()
    again = tmp_path / "folder" / ".." / rows.name
    found = parts(
        f"{{data: local, path: {rows}, share: .4}}",
        f"{{data: local, path: {other}, share: .3}}",
        f"{{data: local, path: {again}, kind: retention, share: .2}}",
        "{data: local, hub_id: a/b, name: local-2, share: .1}",
    )
    assert [part.name for part in found] == ["local", "local-2", "local", "local-2-2"]


def test_a_yaml_of_ones_own_may_be_a_mixture_or_a_part(run_script, tmp_path, rows, monkeypatch):
    monkeypatch.setenv("ROWS", str(rows))
    for group in ("data", "experiment"):
        (tmp_path / "own" / group).mkdir(parents=True)
    own = {"name": "own", "path": "${oc.env:ROWS}", "language": "micro"}
    (tmp_path / "own" / "data" / "own.yaml").write_text(yaml.safe_dump(own))
    mix = [{"data": "own", "share": 0.5}, {"data": "micro-retention", "kind": "retention", "share": 0.5}]
    (tmp_path / "own" / "data" / "both.yaml").write_text(yaml.safe_dump({"name": "both", "mix": mix, "limit": 2}))
    text = "# @package _global_\n" + yaml.safe_dump({"data": {"mix": mix}})
    (tmp_path / "own" / "experiment" / "mixed.yaml").write_text(text)
    for override, name in (("data=both", "both"), ("experiment=mixed", "mix")):
        code, [(cfg, _)] = run_script("--config-dir", str(tmp_path / "own"), override)
        assert code == 0 and cfg.data.name == name
        assert [part.name for part in cfg.data.mix] == ["own", "micro-retention"]
        assert cfg.data.mix[0].path == str(rows)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("defaults: [star1]\n", "no plain source"),
        ("mix: [{data: star1, share: 1}]\n", "no plain source"),
        ("name: ${seed}\n", "seed"),
    ],
)
def test_a_choice_that_is_no_source_by_itself_is_refused(text, said, tmp_path, capsys, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "own.yaml").write_text(text)
    monkeypatch.setattr("sys.argv", ["train.py"])
    code = run(lambda cfg, place: None, "train", ["--config-dir", str(tmp_path), "data.mix=[{data: own, share: 1}]"])
    message = " ".join(capsys.readouterr().err.split())
    assert code == 2 and message.startswith("error: data.mix[0].data=own:") and said in message


def test_the_miniature_has_all_three_kinds_in_one_set_with_exact_shares():
    loaded = load_examples(compose("train", [MICRO, "data.limit=50"]).data, seed=1)
    assert loaded.part_sizes == (30, 15, 5)
    assert [example.label for example in loaded.examples] == ["harmful"] * 30 + ["benign"] * 15 + ["retention"] * 5
    assert len({example.id for example in loaded.examples}) == 50
    assert {example.source for example in loaded.examples[45:]} == {"micro-retention"}
