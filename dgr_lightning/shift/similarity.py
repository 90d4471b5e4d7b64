"""How similar two texts are to an embedding model: SDFT's measure of a distribution shift (arXiv 2402.13669, section 5).

SDFT compares the outputs of a model before and after tuning by the cosine of their embeddings by all-MiniLM-L6-v2 (its
eval/eval_similarity.py). Here any model's folder will do. Files of sentence-transformers are followed where it has them
(`modules.json`, `1_Pooling/config.json`, `sentence_bert_config.json`; a normalising module changes no cosine); without them an
embedding is the mean of the last hidden states. With the target model itself no special tokens are added. Hidden states of
language models are similar for any two texts, so a similarity is reported beside that of unrelated texts: text i of one side
and i + 1 of the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from dgr_lightning.console import progress
from dgr_lightning.errors import UserError
from dgr_lightning.files import read_jsonl
from dgr_lightning.json_text import BadJson, parse_json
from dgr_lightning.models.tokenizer import load_tokenizer
from dgr_lightning.models.weights import load_encoder
from dgr_lightning.shift.nll import choose_examples
from dgr_lightning.statistics.bootstrap import distribution, ratio_of_sums

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_POOLING = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean", "pooling_mode_lasttoken": "lasttoken"}
# Tokens per forward pass, padding included.
_TOKENS_AT_ONCE = {"cpu": 4096, "cuda": 2**16}
# Enough to form batches of similar length; the embeddings of so many pairs are in memory at the same time.
_PAIRS_AT_ONCE = 128

Texts = tuple[str, str]


class Cosine(NamedTuple):
    """The cosine of a pair's embeddings, and that of its first text with another pair's second; None for a single pair."""

    own: float
    unrelated: float | None


class Embedder:
    """Turns texts into vectors."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        pooling: str = "mean",
        max_length: int | None = None,
        special_tokens: bool = True,
    ) -> None:
        """Wraps a loaded model, where it is.

        Args:
            model: without its head: its output has `last_hidden_state`.
            tokenizer: the model's.
            pooling: `mean`, `cls` (the first token) or `lasttoken`.
            max_length: tokens of a text, special ones included; a longer text is truncated. None: the model's own limit.
            special_tokens: whether to add the tokenizer's special tokens; where added, they are pooled like others.

        Raises:
            UserError: the model is an encoder-decoder.
        """
        if model.config.is_encoder_decoder:
            raise UserError(f"{type(model).__name__} is encoder and decoder in one; shift.embedding takes one or the other.")
        self._model, self._tokenizer, self._pooling, self._special = model, tokenizer, pooling, special_tokens
        positions = model.config.get_text_config().max_position_embeddings
        self._max_length = min(max_length or positions, positions, tokenizer.model_max_length)
        self.num_cut = 0
        """Texts that filled `max_length`, so that their end may be missing."""

    @classmethod
    def load(
        cls,
        folder: Path,
        precision: str = "fp32",
        device: str = "cpu",
        trust_remote_code: bool = False,
        special_tokens: bool = True,
    ) -> Self:
        """Loads an embedding model, or the target, from a local folder with safetensors.

        Args:
            folder: a Hugging Face folder, with or without the files of sentence-transformers.
            precision: `bf16` or `fp32`.
            device: cpu or cuda.
            trust_remote_code: run code that lies in the folder, for models that transformers does not know.
            special_tokens: as in the constructor; False for the target.

        Raises:
            UserError: it cannot be loaded, or its pooling or one of its modules is not supported.
        """
        pooling, max_length = _sentence_transformers(folder)
        model = load_encoder(folder, precision, device, trust_remote_code)
        return cls(model, load_tokenizer(folder, trust_remote_code), pooling, max_length, special_tokens)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Returns (texts, width): a vector of length 1 for every text, of length 0 for one without tokens."""
        ids: list[list[int]] = [
            self._tokenizer(text, add_special_tokens=self._special, truncation=True, max_length=self._max_length)["input_ids"]
            for text in texts
        ]
        self.num_cut += sum(len(tokens) >= self._max_length for tokens in ids)
        vectors = np.zeros((len(texts), self._model.config.get_text_config().hidden_size), dtype=np.float32)
        order = sorted((i for i, tokens in enumerate(ids) if tokens), key=lambda i: -len(ids[i]))
        while order:
            num_rows = max(1, _TOKENS_AT_ONCE[self._model.device.type] // len(ids[order[0]]))
            rows, order = order[:num_rows], order[num_rows:]
            vectors[rows] = self._forward([ids[i] for i in rows])
        return vectors

    @torch.inference_mode()
    def _forward(self, rows: Sequence[list[int]]) -> NDArray[np.float32]:
        device, lengths = self._model.device, torch.tensor([len(row) for row in rows])
        ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).to(device)
        # Padded on the right with any token: the mask hides it from an encoder, and a language model never looks ahead.
        states = self._model(input_ids=ids.to(device), attention_mask=mask.long()).last_hidden_state.float()
        if self._pooling == "mean":
            pooled = (states * mask[:, :, None]).sum(1) / lengths.to(device)[:, None]
        else:
            at = torch.zeros_like(lengths) if self._pooling == "cls" else lengths - 1
            pooled = states[torch.arange(len(rows), device=device), at.to(device)]
        vectors: NDArray[np.float32] = torch.nn.functional.normalize(pooled, dim=-1).cpu().numpy()
        return vectors


def similarities(embedder: Embedder, pairs: Iterable[Texts]) -> Iterator[Cosine]:
    """Yields the similarity of every pair's texts, in order; only few pairs are in memory at the same time.

    Equal texts have similarity 1, even empty ones; otherwise a text without tokens has similarity 0 to any other.
    """
    waiting = iter(pairs)
    while chunk := list(islice(waiting, _PAIRS_AT_ONCE)):
        # A text that occurs twice, as where nothing was rewritten, is embedded once.
        place = {text: i for i, text in enumerate(dict.fromkeys(text for pair in chunk for text in pair))}
        vectors = embedder.embed(list(place))

        def cosine(first: str, second: str, place: dict[str, int] = place, vectors: NDArray[np.float32] = vectors) -> float:
            if first == second:
                return 1.0
            return float(np.clip(vectors[place[first]] @ vectors[place[second]], -1.0, 1.0))

        for i, (first, second) in enumerate(chunk):
            other = chunk[(i + 1) % len(chunk)][1]
            yield Cosine(cosine(first, second), cosine(first, other) if len(chunk) > 1 else None)


def measure_similarity(embedder: Embedder, pairs: Iterable[Texts], num_pairs: int, label: str) -> dict[str, Any] | None:
    """Returns the figures of the similarities of pairs; None where there is no pair.

    Args:
        embedder: embeds the texts.
        pairs: read once, streaming.
        num_pairs: their number, for the progress bar.
        label: names the progress bar.

    Returns:
        `cosine` (an estimate: the mean over pairs), `quantiles`, `histogram`, `unrelated` (the mean over unrelated texts, None
        for one pair) and `cut`: the number of texts that filled the model's limit of tokens.
    """
    own, unrelated, cut_before = [], [], embedder.num_cut
    with progress(label, num_pairs) as advance:
        for cosine in similarities(embedder, pairs):
            own.append(cosine.own)
            if cosine.unrelated is not None:
                unrelated.append(cosine.unrelated)
            advance(1)
    if not own:
        return None
    mean = ratio_of_sums(own, np.ones(len(own)), most=1.0)
    return {
        "cosine": mean.to_json(),
        **distribution(own, low=-1.0, high=1.0),
        "unrelated": float(np.mean(unrelated)) if unrelated else None,
        "cut": embedder.num_cut - cut_before,
    }


def measure_rewrites(embedder: Embedder, sources: Path, refined: Path, limit: int | None) -> dict[str, Any] | None:
    """Returns the similarity of rewrites and their sources, as `measure_similarity` does; None where nothing was rewritten.

    Args:
        embedder: embeds the texts.
        sources: JSONL of examples.
        refined: JSONL of refined examples, in the same order; some of the sources may be missing in it.
        limit: rewrites that are measured, drawn by `nll.choose_examples`; None: all.
    """
    chosen = choose_examples([row["id"] for row in read_jsonl(refined) if row["refined"]], limit)

    def pairs() -> Iterator[Texts]:
        before = read_jsonl(sources)
        for row in read_jsonl(refined):
            if row["id"] in chosen:
                source = next(source for source in before if source["id"] == row["id"])
                yield _response(source), _response(row)

    return measure_similarity(embedder, pairs(), len(chosen), "similarity of source and rewrite")


def _response(row: dict[str, Any]) -> str:
    return "\n\n".join(text for text in (row["trace"], row["answer"]) if text)


def _sentence_transformers(folder: Path) -> tuple[str, int | None]:
    """Returns pooling and maximum length by the files of sentence-transformers; `mean` and None where there are none.

    Raises:
        UserError: they cannot be read, or name a module or a pooling that is not supported.
    """

    def read(name: str, shape: type) -> Any:
        path = folder / name
        try:
            value = parse_json(path.read_text(encoding="utf-8")) if path.is_file() else shape()
        except (BadJson, UnicodeDecodeError) as error:
            raise UserError(f"shift.embedding={folder}: {name} is damaged ({error}); copy it again.") from error
        if not isinstance(value, shape):
            raise UserError(f"shift.embedding={folder}: {name} is not what sentence-transformers writes; copy it again.")
        return value

    place = "1_Pooling"
    for module in read("modules.json", list):
        if not (isinstance(module, dict) and all(isinstance(module.get(name), str) for name in ("type", "path"))):
            raise UserError(f"shift.embedding={folder}: modules.json has an entry without type and path; copy it again.")
        kind = module["type"].rpartition(".")[2]
        if kind == "Pooling":
            place = module["path"]
        elif kind not in ("Transformer", "Normalize") or (kind == "Transformer" and module["path"]):
            raise UserError(
                f"shift.embedding={folder}: modules.json has {module['type']} in {module['path'] or 'the folder itself'}, "
                "which is not supported. Take a model of a Transformer, a Pooling and a Normalize, such as all-MiniLM-L6-v2."
            )
    config = read(f"{place}/config.json", dict)
    # Older files have one switch per mode, newer ones the name of the mode.
    switched_on = [key for key, on in config.items() if key.startswith("pooling_mode_") and on]
    modes = (
        [config["pooling_mode"]] if "pooling_mode" in config else [_POOLING.get(key, key) for key in switched_on] or ["mean"]
    )
    if len(modes) > 1 or modes[0] not in _POOLING.values():
        known = ", ".join(_POOLING.values())
        raise UserError(f"shift.embedding={folder}: {place} pools by {', '.join(map(str, modes))}; supported: one of {known}.")
    length = read("sentence_bert_config.json", dict).get("max_seq_length")
    if not isinstance(length, int | None):
        raise UserError(f"shift.embedding={folder}: sentence_bert_config.json: max_seq_length is {length!r}, no number.")
    return modes[0], length
