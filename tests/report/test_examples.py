import tracemalloc

from dgr_lightning.files import write_jsonl
from dgr_lightning.report import examples, page
from tests.helpers.finished_run import NOTE, make_summary, write_run


def test_page_shows_up_to_three_rewrites_for_every_check_that_failed(tmp_path):
    run_dir = write_run(tmp_path)
    checks = examples.quality_checks(run_dir)
    assert [(check.name, check.num_failed, check.num_judged) for check in checks] == [
        ("unfinished", 0, 9),
        ("empty", 4, 9),
        ("meta_thinking", 2, 9),
    ]
    assert [[rewrite.id for rewrite in check.rewrites] for check in checks] == [[], ["x-5", "x-6", "x-7"], ["x-4", "x-7"]]
    (name, source, rewrite) = checks[1].rewrites[0].parts[0]
    assert (name, source) == ("response", "old trace\n\nold answer") and rewrite.startswith("rewrite of x-5")
    assert "empty, meta thinking" in checks[2].rewrites[1].note
    html = page.write_html(run_dir, make_summary(), NOTE).read_text()
    assert html.count("rewrite of x-7") == 2 and "rewrite of x-8" not in html and "rewrite of x-0" not in html
    assert "Rewrites that failed: unfinished" not in html and "Rewrites that failed: empty" in html


def test_page_of_a_large_set_holds_little_of_it_in_memory(tmp_path):
    text = "word " * 200

    def lines(number):
        for i in range(number):
            yield {"id": f"x-{i}", "prompt": text, "trace": text, "answer": text, "label": "harmful", "source": "x"}

    run_dir = tmp_path / "run"
    write_jsonl(run_dir / "stages" / "sources.jsonl", lines(5000))
    write_jsonl(run_dir / "refined.jsonl", (row | {"refined": True, "reason": None} for row in lines(5000)))
    verdict = {"part": "trace", "attempt": 0, "checks": {"empty": True}, "num_tokens": 5, "nll": None, "text": text}
    write_jsonl(run_dir / "stages" / "verdicts.jsonl", ({"id": row["id"], **verdict} for row in lines(5000)))
    tracemalloc.start()
    kept, checks = examples.kept_rewrites(run_dir), examples.quality_checks(run_dir)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(kept) == 2 and checks[0].num_failed == 5000 and len(checks[0].rewrites) == 3
    assert peak < 2**20


def test_outputs_without_a_verdict_are_shown_as_such_and_counted_in_no_rate():
    def line(number: int, refused: bool | None) -> dict:
        return {"id": f"p-{number}", "sample": 0, "kind": "harmful", "prompt": "p", "refused": refused} | {
            "output": "o",
            "num_tokens": 4,
            "finish_reason": "stop",
        }

    samples = {(f"p-{number}", 0): line(number, refused) for number, refused in enumerate([True, None, False, None])}
    assert examples.length_cells({"base": samples}) == ["4", "50.0"]
    assert {pair.change for pair in examples.choose_outputs({"base": samples})} == {"refused", "not refused", "no verdict"}
