"""What a path or a hub id implies: a model or rows of one's own."""

from dgr_lightning.cli.compose import compose
from dgr_lightning.tasks.settings import settings_of


def test_a_model_path_alone_brings_no_micro_budgets(folder, rows):
    cfg = compose("train", [f"model.path={folder}", "data=star1", f"data.path={rows}"])
    assert (cfg.model.name, cfg.model.language, cfg.evaluation.name) == ("local", "natural", "quick")
    assert cfg.model.recipe is None and cfg.model.hub_id is None and cfg.data.hub_id is None and cfg.data.revision is None
    assert (cfg.sft.max_length, cfg.refine.max_new_tokens, cfg.refine.overthinking_tokens) == (16384, 8192, 5000)
    assert "micro" not in " ".join(cfg.probes.tasks + cfg.evaluation.tasks)
    assert cfg.data.fields.prompt == "question"


def test_a_folder_that_the_project_grew_stays_the_miniature(folder):
    (folder / "config.json").write_text('{"model_type": "qwen3", "dgr_language": "micro"}')
    for command in ("train", "evaluate"):
        cfg = compose(command, [f"model.path={folder}"])
        assert (cfg.model.name, cfg.model.language, cfg.evaluation.name) == ("micro", "micro", "micro")
        assert cfg.model.recipe is None and cfg.model.path == str(folder)


def test_a_data_path_alone_is_rows_of_ones_own(rows):
    cfg = compose("train", [f"data.path={rows}"])
    assert (cfg.data.name, cfg.data.recipe, cfg.data.limit, cfg.data.fields.answer) == ("local", None, None, None)


def test_an_experiment_keeps_its_field_map_for_a_local_copy(folder, rows):
    cfg = compose("train", ["experiment=star1", f"model.path={folder}", f"data.path={rows}"])
    assert cfg.data.name == "star1" and cfg.data.fields.prompt == "question"


def test_another_hub_id_drops_the_pinned_commit():
    cfg = compose("train", ["model=qwen3-0.6b", "model.hub_id=me/mine", "data=star1"])
    assert (cfg.model.hub_id, cfg.model.revision) == ("me/mine", None)


def test_kinds_and_tasks_take_settings_of_their_own_on_the_command_line():
    own = ["evaluation.by_kind.harmful.temperature=0", "evaluation.by_task={math500: {samples: 4}}", "evaluation.prefill="]
    evaluation = compose("evaluate", ["model=qwen3-4b", *own]).evaluation
    assert (settings_of(evaluation, "strongreject").temperature, settings_of(evaluation, "xstest").temperature) == (0, 0.6)
    assert (settings_of(evaluation, "math500").samples, settings_of(evaluation, "gsm8k").samples) == (4, 1)
    assert evaluation.prefill == ""
