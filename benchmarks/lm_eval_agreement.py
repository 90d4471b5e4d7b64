"""This project beside lm-evaluation-harness: the same model, prompts and greedy decoding in fp32, problem by problem.

    pip install lm_eval                          # in an environment of its own that has this project's requirements too
    python -m benchmarks.lm_eval_agreement       # the miniature, whole and with noise on its weights
    python -m benchmarks.lm_eval_agreement --model FOLDER --task gsm8k --path gsm8k.jsonl --limit 100 --tokens 2048

lm-eval is given our messages as a task of its own (`hf` backend, `--apply_chat_template`), generates by itself, and grades by
its regex filter and exact match: the last `\\boxed{…}` against the gold answer. Ours go through the project's engine, parsing
and grader. Compared are texts and verdicts; each problem on which the two differ is shown with what explains it. Ends in
`agreement=… texts=… n=…`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for `python benchmarks/lm_eval_agreement.py`

MICRO = ("micro-short", "micro-medium", "micro-long")
_END = ("<|end|>", "<|im_end|>", "<｜end▁of▁sentence｜>", "<|eot_id|>")


def main() -> None:
    """Compares, and prints what was found."""
    parser = argparse.ArgumentParser(prog="lm_eval_agreement.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="Hugging Face folder; without it the miniature")
    parser.add_argument("--task", action="append", help="a reasoning task; without it the miniature's three")
    parser.add_argument("--path", help="local copy of the task's data")
    parser.add_argument("--limit", type=int, default=200, help="problems a task")
    parser.add_argument("--tokens", type=int, default=160, help="new tokens at most")
    parser.add_argument("--noise", type=float, action="append", help="noise on the weights, as a share of their spread")
    arguments = parser.parse_args()
    tasks, same, texts, total = arguments.task or MICRO, 0, 0, 0
    with tempfile.TemporaryDirectory() as scratch:
        for noise in arguments.noise or ([0.0] if arguments.model else [0.0, 0.2, 0.3]):
            folder = _with_noise(_folder(arguments.model), noise, Path(scratch) / f"noise-{noise}")
            for task in tasks:
                place = Path(scratch) / f"{task}-{noise}"
                ours = _ours(folder, task, arguments, place)
                theirs = _theirs(folder, ours, arguments.tokens, place)
                counts = _compare(f"{task}, noise {noise:g}", ours, theirs)
                same, texts, total = same + counts[0], texts + counts[1], total + len(ours)
    print(f"agreement={same / total:.4f} texts={texts / total:.4f} n={total}")


def _folder(model: str | None) -> Path:
    from dgr_lightning.cli.compose import compose
    from dgr_lightning.pipeline.locate_model import locate

    return locate(compose("evaluate", [f"model.path={model}"] if model else []).model)


def _with_noise(folder: Path, noise: float, copy: Path) -> Path:
    """Returns a folder with Gaussian noise on every matrix: a model that is often wrong, so that verdicts can differ."""
    if not noise:
        return folder
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, copy)
    generator = torch.Generator().manual_seed(0)
    for file in copy.glob("*.safetensors"):
        weights = load_file(file)
        for name, weight in weights.items():
            if weight.ndim > 1:
                weights[name] = weight + noise * weight.std() * torch.randn(weight.shape, generator=generator)
        save_file(weights, file, {"format": "pt"})
    return copy


def _ours(folder: Path, task: str, arguments: argparse.Namespace, place: Path) -> list[Mapping[str, Any]]:
    """Returns the lines of `<task>.jsonl`."""
    from dgr_lightning.config import Config
    from dgr_lightning.engines.model_handle import ModelHandle
    from dgr_lightning.evaluation.evaluate import evaluate_model
    from dgr_lightning.files import read_jsonl
    from dgr_lightning.scoring.judge import open_judge

    cfg = Config()
    cfg.engine.name, cfg.engine.precision, cfg.trainer.accelerator = "transformers", "fp32", "cpu"
    cfg.evaluation.tasks, cfg.evaluation.limit, cfg.evaluation.temperature = [task], arguments.limit, 0.0
    cfg.evaluation.max_new_tokens = arguments.tokens
    cfg.evaluation.path = {task: arguments.path} if arguments.path else {}
    with ModelHandle(folder, cfg) as model:
        evaluate_model(model, cfg, open_judge(cfg), place / "out", place / "stored")
    return list(read_jsonl(place / "out" / f"{task}.jsonl"))


def _theirs(folder: Path, ours: Sequence[Mapping[str, Any]], tokens: int, place: Path) -> list[tuple[str, bool]]:
    """Returns lm-eval's text and verdict of every problem, in the order of ours."""
    import lm_eval

    from dgr_lightning.files import write_jsonl

    write_jsonl(place / "problems.jsonl", [{"prompt": row["prompt"], "gold": row["gold"]} for row in ours])
    config = {
        "task": "ours",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(place / "problems.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{gold}}",
        "generation_kwargs": {"do_sample": False, "max_gen_toks": tokens, "until": list(_END)},
        "filter_list": [
            {
                "name": "boxed",
                "filter": [
                    {"function": "regex", "regex_pattern": r"\\boxed\{([^{}]*)\}", "group_select": -1},
                    {"function": "take_first"},
                ],
            }
        ],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(folder), "dtype": "float32"},
        tasks=[config],
        apply_chat_template=True,
        log_samples=True,
        batch_size=16,
        device="cpu",
    )
    samples = sorted(found["samples"]["ours"], key=lambda sample: sample["doc_id"])
    return [(sample["resps"][0][0], sample["exact_match"] == 1) for sample in samples]


def _compare(label: str, ours: Sequence[Mapping[str, Any]], theirs: Sequence[tuple[str, bool]]) -> tuple[int, int]:
    """Prints what agrees, and each problem that does not; returns how many verdicts and texts are the same."""
    same = texts = 0
    for row, (text, correct) in zip(ours, theirs, strict=True):
        same_text = "".join(text.split()) == "".join(row["output"].split())
        texts, same = texts + same_text, same + (row["correct"] == correct)
        if row["correct"] != correct:
            alike = "the same text" if same_text else "another text"
            print(
                f"  {row['id']}: ours {row['correct']} ({row['outcome']}, final {row['final']!r}), theirs {correct}, gold "
                f"{row['gold']!r}, finish {row['finish_reason']}, {alike}: …{text[-60:]!r}"
            )
    right = sum(bool(row["correct"]) for row in ours)
    print(
        f"{label}: verdicts {same} of {len(ours)} the same, texts {texts}; right: ours {right}, theirs "
        f"{sum(correct for _, correct in theirs)}"
    )
    return same, texts


if __name__ == "__main__":
    main()
