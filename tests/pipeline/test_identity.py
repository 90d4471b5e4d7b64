"""The identity of a run: what determines its result, and nothing else."""

import pytest

from dgr_lightning.cli.compose import compose
from dgr_lightning.config import JudgeConfig
from dgr_lightning.data.sources import data_hash
from dgr_lightning.pipeline.identity import evaluation_hash, identify, slug
from dgr_lightning.prompts.templates import SHIPPED
from tests.helpers.configs import CONTENTS, config
from tests.helpers.source_sets import plain_rows, source_set

DETERMINES = [
    {"seed": 2},
    {"data__name": "other"},  # ids carry it, and the noise of a rewrite follows from the id
    {"data__limit": 7},
    {"data__benign_ratio": 0.5},
    {"data__first": 9},
    {"data__keep": {"label": "x"}},
    {"data__fields__prompt": "question"},
    {"refine__strategy": "vanilla"},
    {"refine__seed": 1},
    {"refine__temperature": 0.0},
    {"refine__tries": 2},
    {"refine__max_new_tokens": 9},
    {"refine__overthinking_tokens": 9},
    {"refine__fraction": 0.5},
    {"refine__on_failure": "drop"},
    {"refine__checks": ["empty"]},
    {"engine__precision": "bf16"},
    {"sft__lr": 1e-3},
    {"sft__epochs": 1},
    {"sft__max_steps": 4},
    {"sft__batch_size": 4},
    {"sft__max_length": 64},
    {"sft__optimizer": "adamw8bit"},
    {"tuning__method": "lora"},
    {"sft__weight_decay": 0.0},
    {"sft__warmup_ratio": 0.0},
    {"sft__clip_norm": 2.0},
    {"sft__betas": [0.9, 0.95]},
    {"sft__warmup_steps": 5},
    {"sft__loss_mean": "examples"},
    {"sft__truncate": "left"},
    {"sft__append_eos": False},
    {"model__system_prompt": "Be brief."},
    {"model__chat_style": "think-text"},
    {"model__think_marks": ["<a>", "</a>"]},
    {"refine__top_k": 20},
    {"model__template_args": {"enable_thinking": True}},
    {"trainer__precision": "bf16"},
    {"probes__every": 5},
    {"probes__size": 5},
    {"probes__tasks": ["gsm8k"]},
]
DOES_NOT = [
    {"name": "other"},
    {"overwrite": True},
    {"model__name": "other", "model__path": "/elsewhere", "model__hub_id": "a/b", "model__revision": "c", "model__seed": 5},
    {"data__path": "/elsewhere.jsonl", "data__hub_id": "a/b", "data__revision": "c", "data__split": "test"},
    {"refine__name": "mine"},
    {"engine__batch_size": 3},
    {"tuning__rank": 3, "tuning__layers": "0-1"},  # of adapters, and every weight is trained
    {"tuning__quant_storage": "uint8"},
    {"sft__max_tokens": 64},
    {"trainer__name": "x", "trainer__accelerator": "cuda", "trainer__devices": 8, "trainer__nodes": 2},
    {"trainer__checkpoint_every": 1, "trainer__max_restarts": 3},
    {"evaluation__name": "x", "evaluation__tasks": ["math500"], "evaluation__limit": 3, "evaluation__seed": 4},
    {"evaluation__path": {"gsm8k": "/elsewhere"}},
    {"probes__path": {"gsm8k": "/elsewhere"}},
    {"logger__name": "wandb", "logger__project": "x"},
]


@pytest.mark.parametrize("changes", DETERMINES, ids=str)
def test_what_determines_the_model_or_its_curves_changes_the_hash(changes):
    assert identify(config(**changes), CONTENTS).hash != identify(config(), CONTENTS).hash


@pytest.mark.parametrize("changes", DOES_NOT, ids=str)
def test_what_does_not_leaves_it(changes):
    assert identify(config(**changes), CONTENTS).hash == identify(config(), CONTENTS).hash


@pytest.mark.parametrize("key", ["model", "data", "probes"])
def test_content_changes_the_hash(key):
    assert identify(config(), CONTENTS | {key: "another"}).hash != identify(config(), CONTENTS).hash


def test_the_evaluation_tasks_have_a_hash_of_their_own():
    reference = evaluation_hash(config(), CONTENTS)
    assert identify(config(), CONTENTS | {"evaluation": "e2"}).hash == identify(config(), CONTENTS).hash
    assert evaluation_hash(config(), CONTENTS | {"evaluation": "e2"}) != reference
    for changes in (
        {"evaluation__limit": 3},
        {"evaluation__top_k": 20},
        {"evaluation__repetition_penalty": 1.2},
        {"evaluation__thinking_tokens": 5},
        {"evaluation__by_kind": {"harmful": {"temperature": 0}}},
        {"evaluation__by_task": {"gsm8k": {"samples": 2}}},
        {"evaluation__prompts": {"gsm8k": "{question}"}},
        {"evaluation__system_prompt": "Be brief."},
        {"evaluation__prefill": ""},
        {"evaluation__attack": "gcg"},
        {"evaluation__seed": 3},
        {"evaluation__tasks": []},
        {"evaluation__skipped": ["gpqa"]},
        {"evaluation__by_task": {"gsm8k": {"samples": 2}}},
        {"engine__precision": "bf16"},
    ):
        assert evaluation_hash(config(**changes), CONTENTS) != reference
    assert evaluation_hash(config(evaluation__missing="skip"), CONTENTS) == reference
    for changes in ({"evaluation__name": "x"}, {"evaluation__path": {"gsm8k": "x"}}, {"sft__lr": 0.1}, {"seed": 5}):
        assert evaluation_hash(config(**changes), CONTENTS) == reference


@pytest.mark.parametrize("changes", [{"refine__temperature": 0.1}, {"refine__tries": 5}, {"refine__fraction": 0.5}], ids=str)
def test_without_refinement_the_keys_of_generation_say_nothing(changes):
    vanilla = config(refine__strategy="vanilla")
    assert identify(config(refine__strategy="vanilla", **changes), CONTENTS).hash == identify(vanilla, CONTENTS).hash


def test_of_tuning_the_keys_of_its_method_count():
    assert identify(config(), CONTENTS).described["tuning"] == {"method": "full"}  # as before there were adapters
    for method in ("lora", "qlora"):
        reference = identify(config(tuning__method=method), CONTENTS).hash
        for key, value in {"rank": 3, "alpha": 5.0, "dropout": 0.1, "target_modules": ["up_proj"], "layers": "0-1"}.items():
            assert identify(config(tuning__method=method, **{f"tuning__{key}": value}), CONTENTS).hash != reference, key
        assert identify(config(tuning__method=method, tuning__quant_storage="uint8"), CONTENTS).hash == reference
        assert f"_{method}-r16_" in identify(config(tuning__method=method), CONTENTS).slug
    assert "_r16_" not in identify(config(), CONTENTS).slug


def test_texts_count_by_content_and_not_by_path(tmp_path):
    first, second = tmp_path / "a.jinja", tmp_path / "b.jinja"
    first.write_text("{{ trace }}")
    second.write_text("{{ trace }}")
    hashes = [identify(config(refine__trace_template=str(file)), CONTENTS).hash for file in (first, second)]
    assert hashes[0] == hashes[1] != identify(config(), CONTENTS).hash
    shipped = SHIPPED / "dgr_trace.jinja"
    assert identify(config(refine__trace_template=str(shipped)), CONTENTS).hash == identify(config(), CONTENTS).hash
    first.write_text("{{ trace }}!")
    assert identify(config(refine__trace_template=str(first)), CONTENTS).hash != hashes[0]


def test_judges_count_by_what_they_ask_and_not_by_where_their_server_is(tmp_path):
    template = tmp_path / "mine.jinja"
    template.write_text("{{ answer }} refused: yes or no?")
    chat = {"judge__name": "chat", "judge__served_model": "m"}
    rubric = JudgeConfig(name="strongreject", served_model="n")
    different = [
        {},
        chat,
        chat | {"judge__served_model": "n"},
        chat | {"judge__template": str(template)},
        chat | {"judge__part": "both"},
        chat | {"judge__max_new_tokens": 9},
        chat | {"judge__also": [rubric]},
        chat | {"judge__also": [JudgeConfig(name="strongreject", served_model="n", threshold=0.9)]},
    ]
    hashes = [evaluation_hash(config(**changes), CONTENTS) for changes in different]
    assert len(set(hashes)) == len(hashes)
    moved = {"judge__url": "http://b/v1", "judge__batch_size": 2, "judge__retries": 1, "judge__api_key_variable": "B"}
    assert evaluation_hash(config(**chat, **moved), CONTENTS) == hashes[1]
    copy = tmp_path / "copy.jinja"
    copy.write_text(template.read_text())
    assert evaluation_hash(config(**chat, judge__template=str(copy)), CONTENTS) == hashes[3]
    template.write_text("{{ answer }} harmful: yes or no?")
    assert evaluation_hash(config(**chat, judge__template=str(template)), CONTENTS) not in hashes


@pytest.mark.parametrize("changes", [{"sft__lr": 1e-3}, {"trainer__precision": "bf16"}, {"probes__every": 1}], ids=str)
def test_refine_runs_do_not_depend_on_training(changes):
    assert identify(config(**changes), CONTENTS, "refine").hash == identify(config(), CONTENTS, "refine").hash
    assert identify(config(refine__seed=4), CONTENTS, "refine").hash != identify(config(), CONTENTS, "refine").hash


def test_kinds_never_share_a_hash():
    assert len({identify(config(), CONTENTS, kind).hash for kind in ("train", "refine", "evaluate")}) == 3


def test_a_section_is_hashed_unless_it_is_left_out_on_purpose():
    sections = ["seed", "model", "data", "refine", "engine", "tuning", "sft", "trainer", "probes"]
    assert list(identify(config(), CONTENTS).described) == [*sections, "content", "kind", "recipe_version"]


@pytest.mark.parametrize(
    ("key", "kind"),
    [("sft__optimizer", "train"), ("engine__name", "train"), ("engine__name", "evaluate"), ("judge__name", "evaluate")],
)
def test_members_from_outside_count_by_their_code(tmp_path, monkeypatch, key, kind):
    module = tmp_path / f"own_{key}_{kind}.py"
    monkeypatch.syspath_prepend(str(tmp_path))
    cfg = config(**{key: f"{module.stem}:Member"})
    hashes = set()
    for version in (1, 2):
        module.write_text(f"class Member:\n    of = verdicts = says = note = {version}\n")
        hashes.add(identify(cfg, CONTENTS, kind).hash)
    assert len(hashes) == 2
    cfg.refine.strategy = "vanilla"
    assert ("code" in identify(cfg, CONTENTS, kind).described["engine"]) == (key == "engine__name" and kind == "evaluate")


@pytest.mark.parametrize(
    ("changes", "train", "refine"),
    [
        ({}, "7c600d3604df", "0a72c06b8946"),
        ({"tuning__method": "lora"}, "276d549af85e", "0a72c06b8946"),
        ({"refine__strategy": "vanilla"}, "427c66b27e69", "4c3fc6b3d63e"),
        ({"refine__strategy": "sdft"}, "ca0b9d2868b2", "cc350ebb0e90"),
        ({"refine__strategy": "thinksafe"}, "327d84d443f2", "c188b1299389"),
        ({"refine__strategy": "filters-only"}, "e274cfd95536", "e12d5a5a53cd"),
        ({"refine__strategy": "length-matched"}, "d8ce6cf09e8a", "bc65c90baa30"),
    ],
    ids=str,
)
def test_run_hashes_stay_as_they_are(changes, train, refine):
    """A change here orphans every finished run: make it on purpose, with a new RECIPE_VERSION and a line in the CHANGELOG."""
    cfg = config(**changes)
    assert identify(cfg, CONTENTS, "train").hash == train
    assert identify(cfg, CONTENTS, "refine").hash == refine
    assert identify(cfg, CONTENTS, "evaluate").hash == "d8e60feb0c1b"
    assert evaluation_hash(cfg, CONTENTS) == "315db8b81e45"


# Which part of the mixture, and what is written of it besides.
PARTS = [
    (0, {"share": 0.6}),
    (1, {"share": 0.25}),
    (1, {"kind": "retention"}),
    (0, {"keep": {"label": "harmful"}}),
    (1, {"first": 9}),
    (1, {"name": "other"}),
    (0, {"fields": {"default_label": "safe_completion"}}),
    (0, {"fields": {"trace": "answer"}}),
    (0, {"label_list": "star1-1"}),
    (2, {"data": "micro-r1act"}),
]


@pytest.fixture
def run_hash(tmp_path):
    """Returns a function: the run hash of a mixture of two files and one of the miniature's sets, some of it changed."""
    rows = plain_rows(20, "harmful") + plain_rows(20, "benign", 20)
    paths = [source_set(tmp_path, rows, name="one").path, source_set(tmp_path, rows[:30], name="two").path]

    def run_hash(index=0, changes=None, places=paths, **others):
        mix = [
            {"data": "local", "path": places[0], "share": 0.7},
            {"data": "local", "path": places[1], "share": 0.2, "kind": "benign"},
            {"data": "micro-retention", "share": 0.1, "kind": "retention"},
        ]
        mix[index] |= changes or {}
        mix[2]["share"] = round(1 - mix[0]["share"] - mix[1]["share"], 9)
        written = str(mix).replace("'", "")
        cfg = compose("train", [f"data.mix={written}", *(f"{key}={value}" for key, value in others.items())])
        return identify(cfg, CONTENTS | {"data": data_hash(cfg.data)}).hash

    return run_hash


@pytest.mark.parametrize(("index", "changes"), PARTS, ids=str)
def test_everything_that_makes_a_part_of_a_mixture_changes_the_hash(run_hash, index, changes):
    assert run_hash(index, changes) != run_hash()


def test_the_seed_the_limit_and_the_rows_of_a_mixture_change_the_hash_and_paths_do_not(run_hash, tmp_path):
    moved = source_set(tmp_path, plain_rows(20, "harmful") + plain_rows(20, "benign", 20), name="moved").path
    two = str(tmp_path / "two.jsonl")
    assert run_hash(places=[moved, two]) == run_hash()
    other = source_set(tmp_path, plain_rows(40, "harmful"), name="other").path
    hashes = {run_hash(), run_hash(places=[other, two]), run_hash(seed=2), run_hash(**{"data.limit": 20})}
    assert len(hashes) == 4


def test_an_attack_of_ones_own_counts_by_its_text_and_never_by_its_place(tmp_path):
    files = [tmp_path / name for name in ("a.txt", "b.txt", "c.txt")]
    for file, text in zip(files, ("x {{ question }}", "x {{ question }}", "y {{ question }}"), strict=True):
        file.write_text(text)
    hashes = [evaluation_hash(config(evaluation__attack_path=str(file)), CONTENTS) for file in files]
    assert hashes[0] == hashes[1] != hashes[2] and evaluation_hash(config(), CONTENTS) not in hashes


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({}, "quick"),
        ({"evaluation__prefill": "zerothink"}, "quick_zerothink"),
        ({"evaluation__prefill": "Of course"}, "quick_prefill"),
        ({"evaluation__attack": "gcg", "evaluation__prefill": "lessthink"}, "quick_lessthink_gcg"),
        ({"evaluation__attack_path": "/somewhere/mine.txt"}, "quick_own-attack"),
    ],
    ids=str,
)
def test_the_name_of_an_evaluation_says_that_it_attacks(changes, end):
    cfg = config(evaluation__name="quick", **changes)
    assert slug(cfg, "evaluate").endswith(f"_{end}") and slug(cfg, "train") == slug(config(), "train")


def test_a_guard_counts_by_its_model_and_by_what_its_verdicts_mean(tmp_path, monkeypatch):
    from tests.helpers.guards import save_guard

    monkeypatch.setenv("DGR_CACHE", str(tmp_path / "cache"))
    guards = [
        {"judge__name": "qwen3guard"},
        {"judge__name": "qwen3guard", "judge__revision": "abc"},
        {"judge__name": "qwen3guard", "judge__controversial": "safe"},
        {"judge__name": "qwen3guard", "judge__model": "Qwen/Qwen3Guard-Gen-0.6B"},
        {"judge__name": "qwen3guard", "judge__model": str(save_guard(tmp_path / "guard"))},
        {"judge__name": "llama-guard"},
        {},
    ]
    hashes = [evaluation_hash(config(**changes), CONTENTS) for changes in guards]
    assert len(set(hashes)) == len(guards)
    (tmp_path / "guard").rename(tmp_path / "moved")
    assert evaluation_hash(config(**guards[4] | {"judge__model": str(tmp_path / "moved")}), CONTENTS) == hashes[4]
    # A list of phrases is no part of a guard, and what it does not read does not count.
    phrases = tmp_path / "phrases.txt"
    phrases.write_text("no")
    assert evaluation_hash(config(**guards[0], judge__phrases=str(phrases)), CONTENTS) == hashes[0]
    assert evaluation_hash(config(**guards[5], judge__controversial="safe"), CONTENTS) == hashes[5]
    assert evaluation_hash(config(judge__controversial="safe"), CONTENTS) == hashes[6]


def test_the_guard_of_a_refinement_is_part_of_what_it_trains():
    thinksafe = {"refine__strategy": "thinksafe"}
    plain, guarded = (identify(config(**thinksafe, judge__name=name), CONTENTS).hash for name in ("keywords", "qwen3guard"))
    assert plain != guarded
    assert identify(config(judge__name="qwen3guard"), CONTENTS).hash == identify(config(), CONTENTS).hash
