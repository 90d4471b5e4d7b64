"""Trainings of seconds, for tests: random models of real families, a small set, and what a run leaves behind."""

from pathlib import Path

import pandas
import pytest
import torch
from safetensors.torch import load_file

from dgr_lightning.config import Config, SftConfig, TrainerConfig
from dgr_lightning.example import Example
from dgr_lightning.models.chat import Chat, Encoded
from dgr_lightning.training.curves import STEP
from dgr_lightning.training.fit import TrainingResult, fit

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


def small_model(family: str, vocabulary: int = 96, **changes):
    """A random model of one of several families, small enough to train in milliseconds."""
    import transformers

    torch.manual_seed(0)
    settings = SIZES | {"initializer_range": 0.2, "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0} | changes
    config = getattr(transformers, f"{family}Config")(vocab_size=vocabulary, **settings)
    return getattr(transformers, f"{family}ForCausalLM")(config).eval()


def plain_loss(model, encoded: list[Encoded]) -> torch.Tensor:
    """The textbook: one document at a time, the model as it comes, the loss over all target tokens."""
    losses, count = [], 0
    for document in encoded:
        logits = model(input_ids=torch.tensor([document.ids])).logits[0, document.num_prompt - 1 : -1]
        labels = torch.tensor(document.ids[document.num_prompt :])
        losses.append(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
        count += len(labels)
    return torch.stack(losses).sum() / count


def save_base(folder: Path, family: str, dtype: torch.dtype = torch.float32, **changes) -> Path:
    """A `small_model` with the miniature's tokenizer, as a Hugging Face folder."""
    from dgr_lightning.micro import corpus
    from dgr_lightning.micro.tokenizer import build_tokenizer

    tokenizer = build_tokenizer(corpus.utterances())
    small_model(family, vocabulary=len(tokenizer), **changes).to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def compile_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has what is compiled traced and guarded as ever, and then run as it was: no C++ is made of it."""
    real = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **options: real(module, backend="eager", **options))


def compile_without_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `compile_eagerly`, and divided into a forward and a backward pass as the real compiler does it."""
    real, backend = torch.nn.Module.compile, "aot_eager_decomp_partition"
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **options: real(module, backend=backend, **options))


WORDS = "start with 9 , step a : subtract 5 multiply 8 last digit is it harmful to"


def examples(count: int = 20) -> list[Example]:
    known, rows = WORDS.split(), []
    for index in range(count):
        words = [known[(index * 7 + place * place) % len(known)] for place in range(40)]
        cut = 10 + index % 13
        rows.append(Example(f"e-{index}", " ".join(words[:8]), " ".join(words[8:cut]), " ".join(words[cut:]), "harmful", "e"))
    return rows


def config(**changes) -> Config:
    cfg = Config(seed=3)
    cfg.sft = SftConfig(lr=1e-2, epochs=2, batch_size=4, max_length=128, max_tokens=100, weight_decay=0.1)
    cfg.trainer = TrainerConfig(accelerator="cpu", strategy="single", devices=1, precision="fp32", checkpoint_every=3)
    cfg.probes.every = 4
    for key, value in changes.items():
        section, name = key.split("_", 1)
        setattr(getattr(cfg, section), name, value)
    return cfg


def train(base: Path, run_dir: Path, probe=None, rows: list[Example] | None = None, **changes) -> TrainingResult:
    return fit(base, Chat.load(base), rows or examples(), config(**changes), run_dir, probe)


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    """The master weights at the end: the exported ones are rounded to the base's type."""
    (last,) = (run_dir / "checkpoints").glob("step-????????")
    stored = {name: value for file in last.glob("*.safetensors") for name, value in load_file(file).items()}
    return {name: value for name, value in stored.items() if name.startswith("model.")}


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def curve(run_dir: Path, name: str = "train/loss") -> dict[int, float]:
    table = pandas.read_csv(run_dir / "metrics.csv")[[STEP, name]].dropna()
    return dict(zip(table[STEP], table[name], strict=True))


def no_space(model, step: int) -> dict[str, float]:
    """A probe that ends a training behind step 8."""
    if step >= 8:
        raise OSError("no space left")
    return {}


def train_twice(base: Path, folder: Path, **changes) -> None:
    """Trains `undisturbed`, and `interrupted` behind step 8, whose last checkpoint is that of step 6."""
    train(base, folder / "undisturbed", **changes)
    with pytest.raises(OSError, match="no space left"):
        train(base, folder / "interrupted", no_space, **changes)
    assert train(base, folder / "interrupted", **changes).resumed_from_step == 6


def exported(run_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(run_dir / "model" / "model.safetensors")
