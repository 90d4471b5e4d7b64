"""Tasks whose data cannot be read: one message that says why and what helps, or left out and said so."""

import pytest

from dgr_lightning.cli import missing_tasks
from dgr_lightning.cli.compose import compose
from dgr_lightning.cli.failures import BAD_CONFIG, DONE
from dgr_lightning.cli.missing_tasks import drop_probes, settle_tasks
from dgr_lightning.config import EvaluationConfig, ProbesConfig
from dgr_lightning.data.hub import ABSENT, GATED, READY, UNREACHABLE
from dgr_lightning.errors import UserError
from tests.helpers.hub import COMMIT, DATASET, NOBODY
from tests.helpers.messages import check_message

CASES = {"walledai/StrongREJECT": GATED, "Paul/XSTest": ABSENT, "TIGER-Lab/MMLU-Pro": UNREACHABLE, "Idavidrein/gpqa": GATED}
TASKS = ["gsm8k", "strongreject", "gpqa", "xstest", "mmlu_pro", "harmbench_adversarial"]


@pytest.fixture
def hub_of_cases(monkeypatch):
    monkeypatch.setattr(missing_tasks, "dataset_access", lambda hub_id, *_: CASES.get(hub_id, READY))
    monkeypatch.setattr(missing_tasks, "unreachable", lambda: "The hub [::1] is away")


def test_one_message_names_every_task_with_what_helps(hub_of_cases):
    with pytest.raises(UserError) as error:
        settle_tasks(EvaluationConfig(tasks=[*TASKS]))
    assert str(error.value) == (
        "The hub [::1] is away, and these tasks of the evaluation are not in the local cache: mmlu_pro. The hub hands out the "
        "data of these tasks of the evaluation only to accounts that have accepted their terms: strongreject "
        "(https://huggingface.co/datasets/walledai/StrongREJECT), gpqa (https://huggingface.co/datasets/Idavidrein/gpqa). "
        "Accept them there, then log in with `hf auth login`, or set HF_TOKEN. The hub has no data of these tasks of the "
        "evaluation: xstest (https://huggingface.co/datasets/Paul/XSTest). The data of these tasks of the evaluation is on no "
        "hub: harmbench_adversarial (https://github.com/seanie12/ThinkSafe, dataset/eval/harmbench.json). Use local copies: "
        "evaluation.path.strongreject=<file> evaluation.path.gpqa=<file> evaluation.path.xstest=<file> "
        "evaluation.path.mmlu_pro=<file> evaluation.path.harmbench_adversarial=<file>, run the others with "
        "evaluation.missing=skip, or name other tasks with evaluation.tasks=[…]."
    )


def test_skipping_measures_the_rest_and_says_so(hub_of_cases, capsys):
    evaluation = EvaluationConfig(tasks=[*TASKS], missing="skip", by_task={"gpqa": {"samples": 4}, "gsm8k": {"samples": 2}})
    settle_tasks(evaluation)
    assert evaluation.tasks == ["gsm8k"] and evaluation.skipped == TASKS[1:] and evaluation.by_task == {"gsm8k": {"samples": 2}}
    out = " ".join(capsys.readouterr().out.split())
    assert "not measured: strongreject, gpqa, xstest, mmlu_pro, harmbench_adversarial. The hub [::1] is away" in out
    assert "hf auth login" in out and out.endswith("Their kinds have no headline.")


def test_local_copies_and_generated_problems_need_no_hub(hub_of_cases, capsys, tmp_path):
    copy = tmp_path / "copy.csv"
    copy.write_text("forbidden_prompt\n" + "".join(f"request {i}\n" for i in range(313)))
    evaluation = EvaluationConfig(tasks=["strongreject", "micro-short"], path={"strongreject": str(copy)}, missing="skip")
    settle_tasks(evaluation)
    assert evaluation.skipped == [] and len(evaluation.tasks) == 2 and capsys.readouterr().out == ""
    copy.write_text("forbidden_prompt\nrequest\n")
    settle_tasks(evaluation)
    out = " ".join(capsys.readouterr().out.split())
    assert "evaluation.path.strongreject holds 1 problems, strongreject as published 313: its figures are not those of" in out


def test_a_run_that_measures_nothing_is_refused(hub_of_cases):
    with pytest.raises(UserError, match=r"evaluation\.missing=skip leaves no task to measure\. The hub hands out"):
        settle_tasks(EvaluationConfig(tasks=["gpqa"], missing="skip"))


def test_gated_data_ends_the_command_before_anything_runs(hub_of_cases, run_script, folder, capsys):
    overrides = [f"model.path={folder}", "evaluation.tasks=[gsm8k,strongreject]", "trainer=cpu"]
    code, seen = run_script(*overrides, command="evaluate")
    assert code == BAD_CONFIG and seen == []
    check_message(capsys.readouterr().err, ["datasets/walledai/StrongREJECT", "hf auth login", "evaluation.path.strongreject="])
    code, ((cfg, _),) = run_script(*overrides, "evaluation.missing=skip", command="evaluate")
    assert code == DONE and (cfg.evaluation.tasks, cfg.evaluation.skipped) == (["gsm8k"], ["strongreject"])


def test_gated_probes_are_left_out_unless_they_were_asked_for(monkeypatch, capsys):
    monkeypatch.setattr(missing_tasks, "dataset_access", lambda hub_id, *_: GATED if "AdvBench" in hub_id else READY)
    probes = ProbesConfig(tasks=["gsm8k", "advbench"])
    drop_probes(probes, asked_for=False)
    assert probes.tasks == ["gsm8k"] and "datasets/walledai/AdvBench" in "".join(capsys.readouterr().out.split())
    with pytest.raises(
        UserError, match=r"these probe tasks only to accounts .* Use local copies: probes\.path\.advbench=<file>"
    ):
        drop_probes(ProbesConfig(tasks=["advbench"]), asked_for=True)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluation.skipped=[gpqa]", r"evaluation\.skipped=\[gpqa\]: written by the project"),
        ("evaluation.missing=ignore", r"evaluation\.missing=ignore: expected one of fail, skip"),
    ],
)
def test_what_a_key_does_not_take_is_refused(override, message):
    with pytest.raises(UserError, match=message):
        compose("evaluate", ["model=qwen3-0.6b", override])


@pytest.mark.slow
def test_access_is_what_the_hub_answers_and_the_cache_needs_no_answer(ask, hub):
    hub.repositories["/api/datasets/owner/Gated"] = ("/datasets/owner/Gated", DATASET)
    hub.gated.add("/api/datasets/owner/Gated")
    ids = "('owner/MySet', 'owner/Gated', 'owner/None')"
    access = f"[dataset_access(hub_id, '{COMMIT}') for hub_id in {ids}]"
    assert ask(access, hub.url)[0] == [READY, GATED, ABSENT]
    assert ask(access, NOBODY)[0] == [UNREACHABLE] * 3
    assert ask(f"len(dataset_rows('owner/MySet', '{COMMIT}', 'train'))", hub.url)[0] == 2
    asked = len(hub.asked)
    assert ask(f"dataset_access('owner/MySet', '{COMMIT}')", NOBODY)[0] == READY and len(hub.asked) == asked


@pytest.mark.slow
def test_a_gated_task_ends_at_the_door_with_its_page(ask, hub):
    for name in ("openai/gsm8k", "walledai/StrongREJECT"):
        hub.repositories[f"/api/datasets/{name}"] = (f"/datasets/{name}", DATASET)
    hub.gated.add("/api/datasets/walledai/StrongREJECT")
    message = ask("settle_tasks(EvaluationConfig(tasks=['gsm8k', 'strongreject']))", hub.url)[0]
    assert message.startswith("UserError: The hub hands out") and "datasets/walledai/StrongREJECT)" in message
    assert "gsm8k" not in message and "evaluation.path.strongreject=<file>" in message
