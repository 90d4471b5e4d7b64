"""A finished run on disk, with hostile markup wherever models or data sets write, and its summary."""

import csv
import math
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import yaml

from dgr_lightning.config import Config
from dgr_lightning.files import write_json, write_jsonl, write_text
from dgr_lightning.report.summary import build_summary
from dgr_lightning.scoring.judges.keywords import KeywordJudge
from dgr_lightning.statistics.bootstrap import distribution, ratio_of_sums
from dgr_lightning.statistics.intervals import Estimate, rate
from dgr_lightning.tasks.metrics import Estimates

ATTACK = '<script>alert(1)</script><img src=x onerror="alert(2)">{{ 7 * 7 }}'
NOTE = KeywordJudge.note
UNDEFINED = Estimate(None, None, None, 0)
REFINEMENT = {
    "examples": 40,
    "refined": 37,
    "fallback": {"meta_thinking": 2, "unfinished": 1},
    "tokens_before": 900,
    "tokens_after": 1100,
    "nll_before": 8.5,
    "nll_after": 0.15,
}


def set_nll(mean: float) -> dict:
    """Returns the result of `record_nll` for a set whose examples have this mean, but for an outlier; one has no trace."""

    def part(number: int) -> dict:
        value = {"value": mean, "low": 0.9 * mean, "high": 1.1 * mean, "n": number}
        perplexity = {key: end if key == "n" else math.exp(end) for key, end in value.items()}
        means = [mean] * (number - 1) + [3 * mean]
        return {"nll": value, "perplexity": perplexity, "tokens": 10 * number} | distribution(means)

    return {"examples": 40, "trace": part(39), "answer": part(40), "both": part(40)}


SIMILAR = {"cosine": ratio_of_sums([0.7, 0.8, 1.0], [1] * 3, most=1.0).to_json(), "unrelated": 0.321, "cut": 2}
SIMILAR |= distribution([0.7, 0.8, 1.0], low=-1.0, high=1.0)
KL = {"value": -0.001, "low": -0.004, "high": 0.002, "n": 30}
SHIFT = {
    "hash": "ab12",
    "before": set_nll(8.5),
    "after": set_nll(0.15),
    "similarity": {"rewrites": SIMILAR, "outputs": None},
    "kl": {kind: {"kl": KL, "k3": KL, "tokens": 300, "cut": 1} for kind in ("all", "reasoning")},
    "seconds": 1.0,
}
UNMEASURED = SHIFT | {"after": SHIFT["before"] | {"trace": None}, "similarity": None, "kl": None}
TRAINING = {
    "steps": 20,
    "target_tokens": 5000,
    "tokens_per_second": 1234.5,
    "peak_memory_bytes": 2**29,
    "loss_first": 2.0,
    "loss_last": 0.1,
    "resumed_from_step": 0,
}
TAX = {"points": Estimate(20.0, 12.0, 28.0, 50), "relative_percent": Estimate(20.4, 12.2, None, 50)}


def estimates(accuracy: float, refusal: float) -> Estimates:
    def share(value: float) -> Estimate:
        return rate([[index < 50 * value] for index in range(50)])

    beside = {"cap_hit_rate": share(0.02), "missing_thinking_rate": share(0.0), "early_stop_rate": share(0.1)}
    return {
        "gsm8k": {"accuracy": share(accuracy), **beside},
        "strongreject": {"refusal_rate": share(refusal), **beside},
        "xstest": {"over_refusal_rate": share(0.0), **beside},
    }


def make_summary(**parts) -> dict:
    whole = {"base": estimates(0.98, 0.1), "tuned": estimates(0.78, 1.0), "tax": TAX}
    whole |= {"refinement": REFINEMENT, "shift": SHIFT, "training": TRAINING, "rejected": {"no answer": 3}}
    chosen = whole | parts if set(parts) == {"skipped"} else parts or whole
    return build_summary("0123456789ab", {"refine": 1.5, "train": 2.25}, **deepcopy(chosen))


def write_run(folder: Path) -> Path:
    """Writes a run directory with everything that a page shows; every text of models and data sets is an attack."""
    cfg = Config()
    cfg.model.name, cfg.data.name, cfg.refine.name = "micro", "micro-directrefusal", "dgr"
    cfg.model.path = "/secret/place/model"
    cfg.evaluation.path = {"gsm8k": "/secret/place/gsm8k.jsonl"}
    cfg.shift.embedding = cfg.refine.response_template = "/secret/place/embedder"
    write_text(folder / "config.yaml", yaml.safe_dump(asdict(cfg)))
    for side in ("base", "tuned"):
        for task, kind, verdict in (
            ("gsm8k", "reasoning", "correct"),
            ("strongreject", "harmful", "refused"),
            ("xstest", "benign", "refused"),
        ):
            rows = [
                {
                    "id": f"{task}-{index}",
                    "sample": 0,
                    "kind": kind,
                    "prompt": f"prompt {ATTACK}",
                    "output": f"thought {ATTACK}" + ("" if index else " and so on" * 5000),
                    "num_tokens": 10,
                    "finish_reason": "stop" if index else "length",
                    verdict: (side == "base") == (index == 1),
                }
                for index in range(4)
            ]
            write_jsonl(folder / "evaluation" / side / f"{task}.jsonl", rows)
    columns = ["trainer/global_step", "train/loss", "probe/reasoning_accuracy", "probe/refusal_rate", "probe/over_refusal_rate"]
    with open(folder / "metrics.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerow([0, "", 0.98, 0.1, 0.0])
        writer.writerows([step, 2 / step, "", "", ""] for step in range(1, 20))
        writer.writerow([20, 0.1, 0.78, 1.0, 0.0])
    examples = [
        {
            "id": f"x-{index}",
            "prompt": f"ask {ATTACK}",
            "trace": "old trace",
            "answer": "old answer",
            "label": "harmful",
            "source": "x",
        }
        for index in range(9)
    ]
    write_jsonl(folder / "stages" / "sources.jsonl", examples)
    write_json(folder / "stages" / "shift.json", SHIFT)
    refined = [e | {"trace": "new trace", "answer": "new answer", "refined": True, "reason": None} for e in examples[:4]]
    write_jsonl(folder / "refined.jsonl", [*refined, *(e | {"refined": False, "reason": "empty"} for e in examples[4:])])
    failures = {
        "x-4": ["meta_thinking"],
        "x-5": ["empty"],
        "x-6": ["empty"],
        "x-7": ["empty", "meta_thinking"],
        "x-8": ["empty"],
    }
    verdicts = []
    for example in examples:
        failed = failures.get(example["id"], [])
        verdict = {"id": example["id"], "part": "response" if example["id"] == "x-5" else "trace", "attempt": 1}
        verdict |= {"checks": {name: name in failed for name in ("unfinished", "empty", "meta_thinking")}, "num_tokens": 1234}
        verdicts.append(verdict | {"nll": None, "text": f"rewrite of {example['id']} {ATTACK}" if failed else None})
    write_jsonl(folder / "stages" / "verdicts.jsonl", verdicts)
    return folder
