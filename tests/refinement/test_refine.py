"""The refine stage on a scripted model: what it passes on, and what is never generated twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dgr_lightning.config import RefineConfig
from dgr_lightning.errors import UserError
from dgr_lightning.example import Example
from dgr_lightning.refinement.refine import Refinement, refine_set
from tests.helpers.scripted import (
    META,
    SET,
    Judge,
    ScriptedEngine,
    Target,
    config,
    example,
    failing,
    good,
    refined,
    texts,
    whole,
)


def test_on_failure_drop_with_nothing_left_is_an_error_that_says_why(tmp_path):
    with pytest.raises(UserError, match=r"refine\.on_failure=drop left none of 4 .*meta_thinking 4.*refine\.on_failure=keep"):
        refined(tmp_path, ScriptedEngine(lambda key, prompt: META), on_failure="drop")


def test_when_every_rewrite_falls_back_the_screen_says_so(tmp_path, screen):
    result = refined(tmp_path, ScriptedEngine(lambda key, prompt: META))
    assert result.stats.refined == 0 and result.stats.fallback == {"meta_thinking": 4}
    shown = " ".join(screen.getvalue().replace("│", " ").split())
    assert "4 of 4 rewrites fell back to the original (meta_thinking 4)" in shown and "vanilla in fact" in shown
    assert "how the model was prompted." in shown, "the end of the warning is cut"


def test_a_fraction_is_exact_and_a_larger_one_takes_all_of_a_smaller_one(tmp_path):
    examples = [example(number) for number in range(20)]
    taken = []
    for fraction in (0.0, 0.25, 0.5, 1.0):
        engine = ScriptedEngine(good)
        result = refined(tmp_path / str(fraction), engine, examples, fraction=fraction, seed=int(fraction * 4))
        taken.append({row.id for row in result.examples if row.refined})
        assert len(taken[-1]) == fraction * 20 and engine.built == (fraction > 0)
        assert {key.split("/")[0] for key in engine.keys} == taken[-1]
        assert all(row.reason is None for row in result.examples)
        traces = [verdict["id"] for verdict in result.verdicts() if verdict["part"] == "trace"]
        assert traces == [row.id for row in examples if row.id in taken[-1]]
    assert taken[0] < taken[1] < taken[2] < taken[3]


def test_a_second_run_builds_no_engine_and_gives_the_same(tmp_path):
    script = failing({"set-1/trace/0": META})
    first = whole(refined(tmp_path, ScriptedEngine(script), tries=2))
    engine = ScriptedEngine(script)
    assert whole(refined(tmp_path, engine, tries=2)) == first
    assert engine.built == 0


def test_an_interrupted_run_is_taken_up_where_it_stopped(tmp_path):
    undisturbed = ScriptedEngine(good)
    expected = whole(refined(tmp_path / "whole", undisturbed))
    for stop in (1, 3, 4, 6):
        cache = tmp_path / str(stop)
        interrupted, second = ScriptedEngine(good, fail_after=stop), ScriptedEngine(good)
        with pytest.raises(KeyboardInterrupt):
            refined(cache, interrupted)
        assert whole(refined(cache, second)) == expected
        assert sorted(interrupted.keys + second.keys) == sorted(undisturbed.keys), "something was generated twice, or never"


@pytest.mark.parametrize(
    "changes",
    [
        {"checks": ["unfinished"]},
        {"overthinking_tokens": 3},
        {"fallback_unit": "part"},
        {"on_failure": "drop"},
        {"fraction": 0.5},
    ],
)
def test_what_only_judges_generates_nothing_anew(tmp_path, changes):
    refined(tmp_path, ScriptedEngine(good))
    engine = ScriptedEngine(good)
    if "overthinking_tokens" in changes:
        assert refined(tmp_path, engine, **changes).stats.fallback == {"overthinking": 4}
    else:
        refined(tmp_path, engine, **changes)
    assert engine.built == 0


def test_the_rest_of_the_set_and_more_tries_leave_stored_rewrites_alone(tmp_path):
    refined(tmp_path, ScriptedEngine(good), SET[:3])
    engine = ScriptedEngine(good)
    refined(tmp_path, engine, [SET[3], SET[1]], tries=3)
    assert sorted(engine.keys) == ["set-3/answer/0", "set-3/trace/0"]


@pytest.mark.parametrize("field_name", ["prompt", "trace", "answer"])
def test_another_content_under_the_same_id_is_generated_anew(tmp_path, field_name):
    refined(tmp_path, ScriptedEngine(good))
    engine = ScriptedEngine(good)
    changed = replace(SET[1], **{field_name: "I cannot be the same."})
    refined(tmp_path, engine, [SET[0], changed])
    assert sorted(engine.keys) == ["set-1/answer/0", "set-1/trace/0"]


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"temperature": 0.7},
        {"top_p": 0.9},
        {"max_new_tokens": 8191},
        {"thinking": False},
        {"view": "part"},
        {"model_hash": "another"},
    ],
)
def test_what_generation_depends_on_generates_anew(tmp_path, changes):
    refined(tmp_path, ScriptedEngine(good))
    engine = ScriptedEngine(good)
    refined(tmp_path, engine, **changes)
    assert {"set-0/trace/0", "set-3/trace/0"} <= set(engine.keys)


def test_another_template_engine_or_precision_generates_anew(tmp_path):
    template = tmp_path / "mine.jinja"
    template.write_text("Again: {{ trace }}", encoding="utf-8")
    configs = [config(), config(trace_template=str(template)), config(), config()]
    configs[2].engine.precision = "bf16"
    configs[3].engine.name = "vllm"
    for cfg in configs:
        engine = ScriptedEngine(good)
        refine_set(SET, cfg, Target(engine), Judge(), tmp_path / "cache")
        assert len(engine.keys) == 8


def test_what_concerns_one_step_leaves_the_others_alone(tmp_path):
    """A new answer template, or an arm that rewrites the trace alone, finds the traces that are there; a new trace does not."""
    refined(tmp_path, ScriptedEngine(good))
    template = tmp_path / "mine.jinja"
    template.write_text("Once more: {{ answer }} after {{ trace }}", encoding="utf-8")
    engine = ScriptedEngine(good)
    refined(tmp_path, engine, answer_template=str(template))
    assert sorted(engine.keys) == [f"set-{n}/answer/0" for n in range(4)]
    engine = ScriptedEngine(good)
    refined(tmp_path, engine, parts=["trace"])
    assert engine.built == 0
    template.write_text("Once more: {{ trace }}", encoding="utf-8")
    engine = ScriptedEngine(good)
    refined(tmp_path, engine, trace_template=str(template))
    assert len(engine.keys) == 8, "answers were made for other traces"


def random_model(vocabulary_size: int):
    """A two-layer Qwen2 that knows nothing."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 512}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True}
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=vocabulary_size, initializer_range=0.5, **shape, **heads)).eval()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_random_model_falls_back_resumes_and_does_not_depend_on_how_batches_are_cut(tmp_path, temperature):
    from dgr_lightning.engines.transformers.engine import TransformersEngine
    from dgr_lightning.micro.tokenizer import build_tokenizer
    from dgr_lightning.models.chat import Chat

    chat = Chat(
        build_tokenizer([*(f"{row.prompt} {row.trace} {row.answer}" for row in SET), "Reasoning: Express this in own words"])
    )
    model = random_model(len(chat.tokenizer))

    def run_once(cache: Path, batch_size: int, examples: Sequence[Example] = SET) -> Refinement:
        engine = TransformersEngine(model, chat, "fp32", batch_size)
        cfg = config(temperature=temperature, max_new_tokens=40, tries=2)
        return refine_set(examples, cfg, Target(lambda: engine, chat=chat), Judge(), cache)

    together = run_once(tmp_path / "whole", 8)
    assert texts(together) == {row.id: (row.trace, row.answer) for row in SET}
    assert together.stats.refined == 0 and sum(together.stats.fallback.values()) == 4
    assert set(together.stats.fallback) <= set(RefineConfig().checks)
    one_by_one = tmp_path / "one by one"
    for row in SET:
        run_once(one_by_one, 1, [row])
    assert list(run_once(one_by_one, 3).verdicts()) == list(together.verdicts())
