"""The sources that a run needs are within reach, or one message names all that are not.

A small server stands in for the hub, and the real libraries talk to it.
"""

from tests.helpers.hub import COMMIT, MODEL, NOBODY

BOTH = (
    f"require_sources(Config(model=ModelConfig(hub_id='owner/model', revision='{COMMIT}'), "
    f"data=DataConfig(hub_id='owner/MySet', revision='{COMMIT}')))"
)


def test_without_a_hub_one_message_names_model_and_data_quickly_and_quietly(ask):
    message, noise, seconds = ask(BOTH, NOBODY)
    assert message.startswith(f"UserError: The Hugging Face hub ({NOBODY}) cannot be reached")
    assert all(part in message for part in ("model owner/model", "data owner/MySet", "model.path=", "data.path="))
    assert noise == "" and seconds < 6


def test_offline_mode_asks_nobody(ask, hub):
    message, _, _ = ask(BOTH, hub.url, HF_HUB_OFFLINE="1")
    assert "switched off (HF_HUB_OFFLINE)" in message and not hub.asked


def test_the_hub_is_asked_once_a_process(ask, hub):
    assert ask(f"[hub_reachable(), hub_reachable(), {BOTH}]", hub.url)[0] == [True, True, None]
    assert hub.asked.count("/") == 1


def test_what_is_local_needs_no_hub(ask, hub, tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}\n")
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_bytes(MODEL[name])
    data = f"DataConfig(path={str(tmp_path / 'rows.jsonl')!r})"
    local = f"require_sources(Config(model=ModelConfig(path={str(tmp_path)!r}, hub_id='a/b'), data={data}))"
    recipe = "require_sources(Config(model=ModelConfig(recipe='micro'), data=DataConfig(recipe='micro-r1act')))"
    for code in (local, recipe):
        assert ask(code, hub.url)[0] is None
    assert not hub.asked


def test_what_is_local_already_is_said_so(ask):
    message = ask("require_sources(Config(model=ModelConfig(recipe='micro'), data=DataConfig(hub_id='owner/MySet')))", NOBODY)[
        0
    ]
    assert "cache: data owner/MySet." in message and "(local already: micro)" in message and "model.path=" in message
