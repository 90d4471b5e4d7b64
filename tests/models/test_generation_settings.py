"""Probes sample as a model's authors say, which stands in its generation_config.json."""

import json

import pytest

from dgr_lightning.errors import UserError
from dgr_lightning.models.generation_settings import AuthorsSampling, authors_sampling


def folder_with(tmp_path, settings):
    (tmp_path / "generation_config.json").write_text(json.dumps(settings))
    return tmp_path


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"do_sample": True, "temperature": 0.6, "top_p": 0.95}, AuthorsSampling(0.6, 0.95, 0)),
        ({"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}, AuthorsSampling(0.6, 0.95, 20)),
        ({"do_sample": True, "top_k": -1}, AuthorsSampling(1.0, 1.0, 0)),
        ({"temperature": 0.6}, AuthorsSampling(0.0, 1.0, 0)),
        ({"do_sample": False, "temperature": 0.6}, AuthorsSampling(0.0, 1.0, 0)),
        ({"do_sample": True, "temperature": None}, AuthorsSampling(1.0, 1.0, 0)),
    ],
    ids=str,
)
def test_what_the_authors_say_counts_where_they_sample(tmp_path, settings, expected):
    assert authors_sampling(folder_with(tmp_path, settings)) == expected


def test_a_folder_that_says_nothing_is_greedy(tmp_path, micro_folder):
    assert authors_sampling(tmp_path) == AuthorsSampling() == authors_sampling(micro_folder)


def test_the_files_of_real_models_are_read(shared):
    assert authors_sampling(shared / "tokenizers" / "qwen3") == AuthorsSampling(0.6, 0.95, 20)
    assert authors_sampling(shared / "tokenizers" / "qwen2.5") == AuthorsSampling(0.7, 0.8, 20)


@pytest.mark.parametrize("settings", [{"temperature": "warm"}, {"top_p": 3}, {"top_k": True}, {"temperature": 1e400}], ids=str)
def test_numbers_that_nothing_can_be_sampled_with_are_refused(tmp_path, settings):
    (name,) = settings
    with pytest.raises(UserError, match=rf"generation_config.json has {name}=.*or write probes.temperature=0.6"):
        authors_sampling(folder_with(tmp_path, {"do_sample": True} | settings))
