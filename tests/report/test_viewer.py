"""`outputs.html`: all outputs as data that one script, and no other, shows as text."""

import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from dgr_lightning.files import write_jsonl
from dgr_lightning.report.samples import side_of
from dgr_lightning.report.viewer import OUTPUTS, PACK, write_outputs, write_viewer
from tests.helpers.finished_run import ATTACK, write_run

NAMES = ("gsm8k", "strongreject", "xstest", "hostile", "many")
TASKS = {subject: {"tasks": NAMES} for subject in ("base", "tuned")}
"""A summary, as far as the page reads it."""


class Page(HTMLParser):
    """The scripts of a page, by type, and the names of its other elements."""

    def __init__(self, html):
        super().__init__()
        self.scripts, self.elements, self.policy = [], set(), ""
        self._inside = None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.elements.add(tag)
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"]
        if tag == "script":
            self._inside = (found.get("type", "text/javascript"), found)
            self.scripts.append([self._inside[0], ""])

    def handle_endtag(self, tag):
        self._inside = None if tag == "script" else self._inside

    def handle_data(self, data):
        if self._inside:
            self.scripts[-1][1] += data

    def of(self, kind):
        return [text for type_, text in self.scripts if type_ == kind]

    @property
    def index(self):
        return json.loads(self.of("application/json")[0])

    @property
    def texts(self):
        return [text for pack in self.of("text/plain") for text in json.loads(gzip.decompress(base64.b64decode(pack)))]


@pytest.fixture
def page(tmp_path):
    write_outputs(write_run(tmp_path), TASKS)
    return Page((tmp_path / OUTPUTS).read_text())


def test_every_sample_stands_in_the_index_with_both_verdicts_and_its_texts_in_a_pack(page):
    assert page.index["sides"] == ["base", "tuned"] and len(page.index["samples"]) == len(page.texts) == 12
    by_id = {sample["id"]: sample for sample in page.index["samples"]}
    assert by_id["gsm8k-1"]["verdicts"] == ["right", "wrong"] and by_id["gsm8k-2"]["verdicts"] == ["wrong", "right"]
    assert by_id["strongreject-0"]["verdicts"] == ["not refused", "refused"]
    assert by_id["gsm8k-0"]["flags"] == [["cut off", "no answer"]] * 2
    text = page.texts[[sample["id"] for sample in page.index["samples"]].index("gsm8k-1")]
    assert text["prompts"] == [f"prompt {ATTACK}"] and [part["verdict"] for part in text["parts"]] == ["right", "wrong"]


def test_the_one_script_that_may_run_is_the_page_s_own(page):
    (script,) = page.of("text/javascript")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert page.policy == f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|fetch\(|XMLHttp|import\(", script)
    assert len(page.scripts) == 2 + len(page.of("text/plain"))


def test_no_text_of_others_becomes_markup(tmp_path):
    run = write_run(tmp_path)
    hostile = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\x1b\u202e"
    row = {"id": hostile, "sample": 0, "kind": "harmful", "prompt": hostile, "output": hostile, "num_tokens": 1}
    row |= {"finish_reason": "stop", "refused": True, "judged": [{"judge": hostile, "part": "answer", "error": hostile}]}
    write_jsonl(run / "evaluation" / "base" / "hostile.jsonl", [row])
    write_outputs(run, TASKS)
    page = Page((run / OUTPUTS).read_text())
    assert "img" not in page.elements and len(page.of("text/javascript")) == 1
    text = next(text for text in page.texts if text["prompts"][0].startswith("</script>"))
    assert text["prompts"][0].endswith("\\x1b\\u202e") and any("no verdict" in fact for fact in text["parts"][0]["facts"])
    assert any(sample["id"] == hostile for sample in page.index["samples"])


def test_texts_are_packed_and_very_long_ones_lose_their_middle(tmp_path):
    run = write_run(tmp_path)
    row = {"sample": 0, "kind": "reasoning", "prompt": "p", "num_tokens": 1, "finish_reason": "stop", "correct": True}
    rows = [row | {"id": f"many-{i}", "output": "x" * 100_000 if i == 0 else f"{i} </think> {i}"} for i in range(2 * PACK + 1)]
    write_jsonl(run / "evaluation" / "base" / "many.jsonl", rows)
    write_outputs(run, TASKS)
    page = Page((run / OUTPUTS).read_text())
    assert len(page.of("text/plain")) == 3 and page.index["pack"] == PACK
    order = [sample["id"] for sample in page.index["samples"]]
    trace = page.texts[order.index("many-0")]["parts"][0]["trace"]
    assert len(trace) < 61_000 and "40,000 characters left out" in trace
    assert page.index["samples"][order.index("many-7")]["verdicts"] == ["right", None], "one side alone has the task"


def test_two_runs_are_matched_by_id_and_a_prompt_that_differs_is_shown_twice(tmp_path):
    runs = [write_run(tmp_path / name) for name in "ab"]
    row = {
        "id": "q-0",
        "sample": 0,
        "kind": "benign",
        "num_tokens": 1,
        "finish_reason": "stop",
        "refused": False,
        "output": "o",
    }
    for run in runs:
        write_jsonl(run / "evaluation" / "tuned" / "q.jsonl", [row | {"prompt": f"asked by {run.name}"}])
    sides = [side_of(f"{run.name}: tuned", run, "tuned") for run in runs]
    page = Page(write_viewer(tmp_path / "both.html", "two runs", sides).read_text())
    assert page.index["sides"] == ["a: tuned", "b: tuned"]
    at = next(i for i, sample in enumerate(page.index["samples"]) if sample["id"] == "q-0")
    assert page.texts[at]["prompts"] == ["asked by a", "asked by b"]


def test_the_same_outputs_give_the_same_page_and_a_run_without_any_gives_none(tmp_path):
    run = write_run(tmp_path / "run")
    write_outputs(run, TASKS)
    first = (run / OUTPUTS).read_bytes()
    write_outputs(run, TASKS)
    assert (run / OUTPUTS).read_bytes() == first
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.yaml").write_text("model: {}")
    write_outputs(tmp_path / "empty", {})
    assert not (tmp_path / "empty" / OUTPUTS).exists()
