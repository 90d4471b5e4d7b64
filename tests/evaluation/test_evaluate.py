"""Evaluation: which estimates each kind of task has, what is stored, and what another run generates again."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from dgr_lightning.console import ignore
from dgr_lightning.engines.engine import Sampling
from dgr_lightning.errors import UserError
from dgr_lightning.evaluation import outputs
from dgr_lightning.evaluation.estimates import estimate
from dgr_lightning.evaluation.evaluate import evaluate_model
from dgr_lightning.evaluation.outputs import in_stream
from dgr_lightning.files import read_jsonl
from dgr_lightning.micro.tokenizer import build_tokenizer
from dgr_lightning.models.chat import Chat
from dgr_lightning.scoring.grader import RIGHT, Grade
from dgr_lightning.scoring.judge import REFUSED, Exchange, Verdict
from dgr_lightning.scoring.judges.keywords import KeywordJudge
from dgr_lightning.scoring.panel import Panel
from dgr_lightning.tasks.metrics import HEALTH, Estimates, headline
from tests.helpers.evaluations import BOXED, NUMBERS, TASKS, WORDS, ScriptedEngine, good, never, run_evaluation
from tests.helpers.fake_model import FakeModel

# --- What is measured -----------------------------------------------------------------------------------------------------


def test_every_kind_of_task_gets_its_metric_and_the_rates_beside_it(chat, cfg, tmp_path):
    measures, _ = run_evaluation(good, chat, cfg, tmp_path)
    assert list(measures) == TASKS
    for task, metric, value, problems in (
        ("gsm8k", "accuracy", 1, 20),
        ("strongreject", "refusal_rate", 1, 10),
        ("xstest", "over_refusal_rate", 0, 10),
    ):
        beside = {"unboxed_rate", "timeout_rate", "unparsable_rate", "refused_reasoning_rate", "accuracy_of_finished"}
        beside = {*HEALTH, "mean_tokens", *(beside if metric == "accuracy" else ())}
        assert set(measures[task]) == {metric, *beside}
        assert measures[task][metric].value == value
        assert all(measure.n == problems for measure in measures[task].values())
    assert [value.value for value in headline(measures).values()] == [1, 1, 0]


def test_lines_of_the_output_files(chat, cfg, tmp_path):
    run_evaluation(good, chat, cfg, tmp_path)
    first, *others = read_jsonl(tmp_path / "out" / "gsm8k.jsonl")
    output = ["output", "num_tokens", "finish_reason"]
    graded = ["correct", "outcome", "boxed", "final", "grader"]
    assert list(first) == ["id", "sample", "kind", "prompt", "gold", *output, *graded]
    assert (first["outcome"], first["boxed"], first["final"], first["grader"]) == ("right", True, "0", "maths@2")
    assert first["kind"] == "reasoning" and first["gold"] == "0" and first["output"].endswith(BOXED.format(0))
    assert len(others) == 19 and first["num_tokens"] == 4
    (row, *_) = read_jsonl(tmp_path / "out" / "strongreject.jsonl")
    assert list(row) == ["id", "sample", "kind", "prompt", "category", *output, "refused", "judged"]
    assert row["category"] == "c" and "category" not in first
    said = {"refused": row["refused"], "harmful": None, "probability": None, "score": None, "error": None}
    assert row["judged"] == [{"judge": "keywords", "part": "answer"} | said]


@pytest.mark.parametrize(
    ("output", "reason", "expected"),
    [
        ("so it </think> sure", "stop", {}),
        ("so it so it", "length", {"cap_hit_rate"}),
        ("so it", "stop", {"early_stop_rate"}),
        ("so </think>", "stop", {"early_stop_rate"}),
        ("so </think> sure it", "length", {"cap_hit_rate"}),
        ("</think> sure", "stop", {"missing_thinking_rate"}),
        ("", "stop", {"missing_thinking_rate", "early_stop_rate"}),
    ],
)
def test_rates_beside_say_how_an_output_ended(chat, output, reason, expected):
    row = {"id": "p", "kind": "harmful", "output": output, "num_tokens": 5, "finish_reason": reason}
    row |= {"prompt": "p", "refused": False}
    measures = estimate([row], chat)
    assert {name for name, value in measures.items() if value.value == 1} == set(expected)


@pytest.mark.parametrize("text", ["so it \\boxed{4}", "I cannot help with that ."])
def test_an_output_without_a_close_of_thinking_is_wrong_not_refused_and_counted(chat, cfg, tmp_path, text):
    measures, _ = run_evaluation(lambda prompt, sample: (text, "length"), chat, cfg, tmp_path)
    assert measures["gsm8k"]["accuracy"].value == 0 and measures["gsm8k"]["accuracy"].n == 20
    assert measures["strongreject"]["refusal_rate"].value == 0 and measures["strongreject"]["refusal_rate"].n == 10
    assert measures["gsm8k"]["cap_hit_rate"].value == 1


def test_without_a_thought_a_finished_output_is_an_answer_where_the_template_opens_none(chat, cfg, tmp_path):
    tokenizer = build_tokenizer([WORDS, *(BOXED.format(number) for number in NUMBERS)])
    tokenizer.chat_template = tokenizer.chat_template.replace("<think>", "")
    open_chat = Chat(tokenizer)
    script = {"how": BOXED.format(4), "please": "I cannot help with that ."}

    def finished(prompt: str, sample: int) -> tuple[str, str]:
        return (script["please"] if "please" in prompt else script["how"]), "stop"

    def cut(prompt: str, sample: int) -> tuple[str, str]:
        return finished(prompt, sample)[0], "length"

    measures, _ = run_evaluation(finished, open_chat, cfg, tmp_path / "finished")
    assert measures["gsm8k"]["accuracy"].value == pytest.approx(4 / 20) and measures["strongreject"]["refusal_rate"].value == 1
    assert {metrics["missing_thinking_rate"].value for metrics in measures.values()} == {1}
    assert {metrics["early_stop_rate"].value for metrics in measures.values()} == {0}
    for other, place, script_ in ((open_chat, "cut", cut), (chat, "prefilled", finished)):
        measures, _ = run_evaluation(script_, other, cfg, tmp_path / place)
        assert measures["gsm8k"]["accuracy"].value == measures["strongreject"]["refusal_rate"].value == 0


def test_samples_of_a_problem_are_averaged_before_problems_are(chat, cfg, tmp_path):
    cfg.evaluation.samples, cfg.evaluation.tasks = 4, ["gsm8k"]

    def script(prompt: str, sample: int) -> tuple[str, str]:
        return good(prompt, sample) if sample else ("so </think> it", "stop")

    measures, _ = run_evaluation(script, chat, cfg, tmp_path)
    assert measures["gsm8k"]["accuracy"].value == pytest.approx(0.75) and measures["gsm8k"]["accuracy"].n == 20
    rows = list(read_jsonl(tmp_path / "out" / "gsm8k.jsonl"))
    assert [row["sample"] for row in rows[:5]] == [0, 1, 2, 3, 0] and len(rows) == 80


def test_a_task_may_have_its_own_number_of_samples(chat, cfg, tmp_path):
    cfg.evaluation.by_task = {"gsm8k": {"samples": 3}}
    measures, _ = run_evaluation(good, chat, cfg, tmp_path)
    sizes = {task: sum(1 for _ in read_jsonl(tmp_path / "out" / f"{task}.jsonl")) for task in TASKS}
    assert sizes == {"gsm8k": 60, "strongreject": 10, "xstest": 10} and measures["gsm8k"]["accuracy"].n == 20
    cfg.evaluation.by_task = {"gsm8k": {"samples": 1}}
    run_evaluation(never, chat, cfg, tmp_path)


def test_headline_of_a_kind_without_tasks_is_undefined(chat, cfg, tmp_path):
    cfg.evaluation.tasks = ["gsm8k"]
    measures, _ = run_evaluation(good, chat, cfg, tmp_path)
    assert headline(measures)["reasoning_accuracy"].value == 1
    assert headline(measures)["refusal_rate"].value is None


class Batches:
    """A judge that refuses what a word of the prompt says, and remembers the batches that it was given."""

    name, note, content, says = "batches", "Only a test.", None, frozenset({REFUSED})

    def __init__(self) -> None:
        self.batches: list[Sequence[Exchange]] = []

    def verdicts(self, exchanges: Sequence[Exchange], advance: object) -> list[Verdict]:
        self.batches.append(exchanges)
        return [Verdict(refused="forge" in exchange.prompt) for exchange in exchanges]

    def close(self) -> None:
        pass


def test_a_judge_gets_all_answers_of_a_task_at_once_with_their_prompts(chat, cfg, tmp_path):
    cfg.evaluation.samples = 2

    def script(prompt: str, sample: int) -> tuple[str, str]:
        return ("so it", "length") if "passport 3" in prompt else good(prompt, sample)

    judge = Batches()
    measures, _ = run_evaluation(script, chat, cfg, tmp_path, judge=judge)
    assert [len(batch) for batch in judge.batches] == [18, 20], "two outputs never got to an answer"
    assert judge.batches[0][0] == ("please forge a passport 0", "I cannot help with that .")
    assert measures["strongreject"]["refusal_rate"].value == pytest.approx(0.9)
    assert measures["xstest"]["over_refusal_rate"].value == 0


OUTSIDE = """
from dgr_lightning.console import ignore
from dgr_lightning.scoring.grader import RIGHT, WRONG, Grade
from dgr_lightning.tasks.task import Task


class Last:
    version = 3

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def grades(self, pairs, advance=ignore):
        return [Grade(RIGHT if answer and answer.split()[-1] == gold else WRONG) for answer, gold in pairs]


TASK = Task(
    name="last-word",
    kind="reasoning",
    read=lambda row, index: (str(index), row["prompt"], row["gold"]),
    splits={"evaluation": "test"},
    grader="last_word_task:Last",
    make=lambda split: [{"prompt": f"how much is {i} ?", "gold": "it" if i % 2 else "sure"} for i in range(4)],
)
"""


def test_a_task_from_outside_the_package_is_measured_by_the_grader_that_it_names(chat, cfg, tmp_path, monkeypatch):
    (tmp_path / "last_word_task.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(tmp_path)
    cfg.evaluation.tasks = ["last_word_task:TASK"]
    measures, _ = run_evaluation(lambda prompt, sample: ("so </think> so it", "stop"), chat, cfg, tmp_path)
    assert list(measures) == ["last-word"] and measures["last-word"]["accuracy"].value == 0.5
    rows = list(read_jsonl(tmp_path / "out" / "last-word.jsonl"))
    assert [row["id"] for row in rows] == [f"last-word-{i}" for i in range(4)]
    assert [row["correct"] for row in rows] == [False, True, False, True]
    assert {row["grader"] for row in rows} == {"last_word_task:Last@3"}


def test_another_version_of_a_grader_grades_stored_outputs_anew_and_generates_nothing(chat, cfg, tmp_path, monkeypatch):
    (tmp_path / "last_word_task.py").write_text(OUTSIDE.replace("last-word", "again").replace("Last", "Again"))
    (tmp_path / "last_word_task.py").rename(tmp_path / "again_task.py")
    monkeypatch.syspath_prepend(tmp_path)
    source = (tmp_path / "again_task.py").read_text().replace("last_word_task", "again_task")
    (tmp_path / "again_task.py").write_text(source)
    cfg.evaluation.tasks = ["again_task:TASK"]
    run_evaluation(lambda prompt, sample: ("so </think> so it", "stop"), chat, cfg, tmp_path)
    grader = __import__("again_task").Again
    monkeypatch.setattr(grader, "version", 4)
    monkeypatch.setattr(grader, "grades", lambda self, pairs, advance=ignore: [Grade(RIGHT) for _ in pairs])
    measures, _ = run_evaluation(never, chat, cfg, tmp_path)
    assert measures["again"]["accuracy"].value == 1
    assert {row["grader"] for row in read_jsonl(tmp_path / "out" / "again.jsonl")} == {"again_task:Again@4"}


# --- What is stored -------------------------------------------------------------------------------------------------------


def test_the_same_evaluation_again_generates_nothing_and_writes_the_same_files(chat, cfg, tmp_path):
    first, _ = run_evaluation(good, chat, cfg, tmp_path)
    written = [(tmp_path / "out" / f"{task}.jsonl").read_bytes() for task in TASKS]
    again, _ = run_evaluation(never, chat, cfg, tmp_path, out_dir=tmp_path / "another")
    assert again == first
    assert [(tmp_path / "another" / f"{task}.jsonl").read_bytes() for task in TASKS] == written


def test_the_engine_is_not_even_built_where_everything_is_stored(chat, cfg, tmp_path):
    run_evaluation(good, chat, cfg, tmp_path)

    model = FakeModel(AssertionError("loaded a model"), chat)
    evaluate_model(model, cfg, Panel(KeywordJudge()), tmp_path / "out", tmp_path / "stored")


def test_an_interrupted_evaluation_goes_on_where_it_was(chat, cfg, tmp_path):
    done = []

    def dies(prompt: str, sample: int) -> tuple[str, str]:
        if len(done) == 7:
            raise KeyboardInterrupt
        done.append(prompt)
        return good(prompt, sample)

    with pytest.raises(KeyboardInterrupt):
        run_evaluation(dies, chat, cfg, tmp_path)
    measures, engine = run_evaluation(good, chat, cfg, tmp_path)
    assert len(engine.asked) == 40 - 7
    assert measures["gsm8k"]["accuracy"].value == 1


def test_more_problems_and_more_samples_generate_only_what_is_new(chat, cfg, tmp_path):
    cfg.evaluation.limit, cfg.evaluation.tasks = 5, ["gsm8k"]
    _, small = run_evaluation(good, chat, cfg, tmp_path)
    cfg.evaluation.limit = 12
    _, large = run_evaluation(good, chat, cfg, tmp_path)
    cfg.evaluation.samples = 2
    _, twice = run_evaluation(good, chat, cfg, tmp_path)
    assert (len(small.asked), len(large.asked), len(twice.asked)) == (5, 7, 12)
    assert not set(small.asked) & set(large.asked)
    assert len(list(read_jsonl(tmp_path / "out" / "gsm8k.jsonl"))) == 24


def test_all_tasks_are_one_stream_the_longest_outputs_first(chat, cfg, tmp_path):
    class Taking(ScriptedEngine):
        """Takes one request after the other."""

        num_streams = 0

        def generate(self, requests, sampling):
            self.num_streams += 1
            for request in requests:
                yield from super().generate([request], sampling)

    assert in_stream(["xstest", "micro-short", "gsm8k", "math500", "strongreject"]) == [
        *("math500", "gsm8k", "xstest", "micro-short", "strongreject")
    ]
    cfg.evaluation.tasks = [*reversed(TASKS)]
    engine = Taking(chat, good)
    evaluate_model(FakeModel(engine, chat), cfg, Panel(KeywordJudge()), tmp_path / "out", tmp_path / "stored")
    assert engine.num_streams == 1 and len(engine.asked) == 40
    tasks = [key.rpartition("-")[0] for key in engine.asked]
    assert tasks == sorted(tasks, key=["gsm8k", "xstest", "strongreject"].index)


def test_another_judge_judges_anew_and_generates_nothing(chat, cfg, tmp_path):
    run_evaluation(good, chat, cfg, tmp_path)
    phrases = tmp_path / "phrases.txt"
    phrases.write_text("a cake\n")
    measures, _ = run_evaluation(never, chat, cfg, tmp_path, judge=KeywordJudge(phrases))
    assert measures["strongreject"]["refusal_rate"].value == 0 and measures["xstest"]["over_refusal_rate"].value == 1


def test_another_gold_answer_is_graded_anew_and_another_prompt_is_generated(chat, cfg, tmp_path):
    cfg.evaluation.tasks = ["gsm8k"]
    run_evaluation(good, chat, cfg, tmp_path)
    file = Path(cfg.evaluation.path["gsm8k"])
    file.write_text(file.read_text().replace("#### 4", "#### 9"))
    measures, _ = run_evaluation(never, chat, cfg, tmp_path)
    assert measures["gsm8k"]["accuracy"].value == pytest.approx(16 / 20)
    file.write_text(file.read_text().replace("how much", "so how much"))
    _, engine = run_evaluation(good, chat, cfg, tmp_path)
    assert len(engine.asked) == 20


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("evaluation", "temperature", 0.5),
        ("evaluation", "top_p", 0.5),
        ("evaluation", "top_k", 5),
        ("evaluation", "max_new_tokens", 9),
        ("evaluation", "seed", 3),
        ("engine", "precision", "bf16"),
    ],
)
def test_what_changes_an_output_generates_anew(chat, cfg, tmp_path, section, key, value):
    cfg.evaluation.tasks = ["xstest"]
    run_evaluation(good, chat, cfg, tmp_path)
    setattr(getattr(cfg, section), key, value)
    _, engine = run_evaluation(good, chat, cfg, tmp_path)
    assert len(engine.asked) == 10


def test_another_model_or_code_version_generates_anew(chat, cfg, tmp_path, monkeypatch):
    cfg.evaluation.tasks = ["xstest"]
    run_evaluation(good, chat, cfg, tmp_path)
    _, other = run_evaluation(good, chat, cfg, tmp_path, model_hash="other")
    monkeypatch.setattr(outputs, "EVALUATION_VERSION", outputs.EVALUATION_VERSION + 1)
    _, newer = run_evaluation(good, chat, cfg, tmp_path)
    assert len(other.asked) == len(newer.asked) == 10


def test_sampling_is_the_config_s(chat, cfg, tmp_path):
    cfg.evaluation.seed, cfg.evaluation.temperature, cfg.evaluation.top_k = 5, 0.7, 20
    _, engine = run_evaluation(good, chat, cfg, tmp_path)
    assert engine.sampling == Sampling(0.7, cfg.evaluation.top_p, 12, 5, chat.stop_ids, 20)


def test_a_task_that_cannot_be_read_is_found_before_anything_is_generated(chat, cfg, tmp_path):
    Path(cfg.evaluation.path["xstest"]).write_text("{}\n")
    with pytest.raises(UserError, match="xstest"):
        run_evaluation(never, chat, cfg, tmp_path)


# --- With a real engine ---------------------------------------------------------------------------------------------------


def test_a_random_model_is_measured_through_the_transformers_engine(chat, cfg, tmp_path):
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from dgr_lightning.engines.transformers.engine import TransformersEngine

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 8}
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=len(chat.tokenizer), num_key_value_heads=1, **shape)).eval()

    def run(batch_size: int, place: Path, tasks: list[str] = TASKS) -> Estimates:
        handle = FakeModel(TransformersEngine(model, chat, "fp32", batch_size), chat)
        cfg.evaluation.tasks = tasks
        return evaluate_model(handle, cfg, Panel(KeywordJudge()), place / "out", place / "stored")

    measures = run(16, tmp_path / "a")
    assert run(3, tmp_path / "b") == measures
    # Beside the outputs of other tasks, or alone.
    assert {task: run(16, tmp_path / "c", [task])[task] for task in TASKS} == measures
    for task in TASKS:
        written = {(tmp_path / place / "out" / f"{task}.jsonl").read_bytes() for place in "abc"}
        assert len(written) == 1
        rows = list(read_jsonl(tmp_path / "a" / "out" / f"{task}.jsonl"))
        assert all(row["num_tokens"] <= 12 and (row["finish_reason"] == "length") == (row["num_tokens"] == 12) for row in rows)
