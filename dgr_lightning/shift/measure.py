"""The shifts that a run measures: of the set from the target, before and after refinement; of the tuned model from the base.

How each is measured is in `nll`, `similarity` (embeddings) and `kl`; this module says on which texts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dgr_lightning.config import Config
from dgr_lightning.engines.model_handle import ModelHandle
from dgr_lightning.example import ExampleFile
from dgr_lightning.files import read_jsonl, write_jsonl
from dgr_lightning.shift.kl import Trace, kl_divergence, load_prompts, score_traces, write_traces
from dgr_lightning.shift.nll import choose_examples, nll, record_nll
from dgr_lightning.shift.similarity import Embedder, measure_rewrites, measure_similarity

Record = dict[str, Any]


def measure_set(sources: Path, refined: Path, folder: Path, cfg: Config, target: ModelHandle, *, changed: bool) -> Record:
    """Measures a set before and after refinement.

    Args:
        sources: JSONL of the source set.
        refined: JSONL of the refined set.
        folder: where `shift-before.jsonl` and `shift-after.jsonl` go, the NLL of every measured example.
        cfg: `shift`, `sft.max_length` and `sft.truncate` are read.
        target: the model before tuning.
        changed: whether refinement changed anything; if not, `after` equals `before`.

    Returns:
        `before`, `after`: as from `record_nll`; `similarity`: None, or `rewrites` as from `measure_similarity` and `outputs`,
        which `measure_models` measures; `kl`: None.

    Raises:
        UserError: an example is too long even without its trace.
    """

    def measure(file: Path, when: str) -> Record:
        examples = ExampleFile(file)
        indices = [index for index, id_ in enumerate(examples.ids) if id_ in chosen]
        measured = nll(target.engine(), target.chat, (examples[index] for index in indices), max_length)
        return record_nll(measured, len(indices), folder / f"shift-{when}.jsonl", label=f"NLL {when}")

    # Where training cuts the beginning, how likely trace and answer are is measured with all of their prompt.
    max_length = None if cfg.sft.truncate == "left" else cfg.sft.max_length
    chosen = choose_examples(ExampleFile(sources).ids, cfg.shift.limit)
    before = measure(sources, "before")
    after = measure(refined, "after") if changed else before
    similarity = None
    if cfg.shift.embedding is not None and changed:
        target.release()
        rewrites = measure_rewrites(_embedder(cfg, target), sources, refined, cfg.shift.limit)
        similarity = rewrites and {"rewrites": rewrites, "outputs": None}
    return {"before": before, "after": after, "similarity": similarity, "kl": None}


def mean_nll(measured: Record) -> float | None:
    """Returns nats per target token, from a record of `record_nll`; None for a set without examples."""
    return None if measured["both"] is None else measured["both"]["nll"]["value"]


def measure_base(cfg: Config, base: ModelHandle, store: Path, scores: Path) -> int:
    """Has the base write traces on prompts of every kind from the probe split, and scores them; returns their number.

    Args:
        cfg: `shift` and `probes` are read.
        base: the model before tuning.
        store: where its traces are stored.
        scores: JSONL to write: `id`, and `logprobs`, the natural-log probability of every token under the base.
    """
    problems = load_prompts(cfg)
    traces = write_traces(base, problems, cfg, store, "traces of the base")
    logprobs = score_traces(base.engine(), traces, "their log-probability, base")
    rows = ({"id": trace.id, "logprobs": own} for trace, own in zip(traces, logprobs, strict=True))
    write_jsonl(scores, rows)
    return len(traces)


def measure_models(cfg: Config, base: ModelHandle, tuned: ModelHandle, stores: tuple[Path, Path], scores: Path) -> Record:
    """Measures how far tuning moved a model, on the prompts of `measure_base`, which has run.

    Args:
        cfg: as for `measure_base`.
        base: the model before tuning; its engine is started only where a stored trace is gone.
        tuned: the model after it.
        stores: where the traces of the base and of the tuned model are stored.
        scores: what `measure_base` has written.

    Returns:
        `kl`: as from `divergence`; `outputs`: as from `measure_similarity`, or None where `shift.embedding` is not set.
    """
    problems = load_prompts(cfg)
    traces = write_traces(base, problems, cfg, stores[0], "traces of the base")
    base.release()
    under_base = [row["logprobs"] for row in read_jsonl(scores)]
    under_tuned = score_traces(tuned.engine(), traces, "their log-probability, tuned")
    outputs = None
    if cfg.shift.embedding is not None:
        written = write_traces(tuned, problems, cfg, stores[1], "traces of the tuned model")
        tuned.release()
        outputs = _similarity_of(_embedder(cfg, base), traces, written)
    return {"kl": kl_divergence(traces, under_base, under_tuned), "outputs": outputs}


def _similarity_of(embedder: Embedder, before: list[Trace], after: list[Trace]) -> Record | None:
    pairs = [(first.text, second.text) for first, second in zip(before, after, strict=True)]
    return measure_similarity(embedder, pairs, len(pairs), "similarity of outputs, base and tuned")


def _embedder(cfg: Config, target: ModelHandle) -> Embedder:
    assert cfg.shift.embedding is not None
    own = cfg.shift.embedding == "target"
    folder = target.folder if own else Path(cfg.shift.embedding).expanduser()
    trusted = cfg.model.trust_remote_code and own
    return Embedder.load(folder, cfg.engine.precision, cfg.trainer.accelerator, trusted, special_tokens=not own)
