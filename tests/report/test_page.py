import re
from dataclasses import asdict

import pytest
import yaml

from dgr_lightning.config import Config
from dgr_lightning.files import write_text
from dgr_lightning.report import page
from tests.helpers.finished_run import ATTACK, NOTE, REFINEMENT, TRAINING, estimates, make_summary, write_run


def test_page_holds_table_curves_examples_and_provenance(tmp_path):
    html = page.write_html(write_run(tmp_path), make_summary(), NOTE).read_text()
    for text in ("micro · micro-directrefusal · dgr", "0123456789ab", "safety tax", "Training loss", "Refusals, probes"):
        assert text in html, text
    for text in (
        "new trace",
        "old trace",
        "failed: meta thinking · try 2 · 1,234 tokens",
        "NLL of the trace",
        "0.321",
        "reasoning prompts",
        "−0.004 to 0.002",
        "right → wrong",
        "not refused → refused",
        "8.500 → 0.150",
    ):
        assert text in html, text
    # Three curves, three parts, one kind of similarity.
    assert html.count('<svg class="chart"') == 7
    assert "characters left out" in html


def test_text_of_others_is_escaped_and_folded(tmp_path):
    html = page.write_html(write_run(tmp_path), make_summary(), NOTE).read_text()
    assert "<script" not in html and "<img" not in html
    assert "&lt;script&gt;alert(1)" in html and "{{ 7 * 7 }}" in html
    # Whatever others wrote stands inside a folded entry: no attack before the first one.
    unfolded = re.sub(r"<details>.*?</details>", "", html, flags=re.S)
    assert "alert(" not in unfolded
    assert "<details open" not in html


def test_page_needs_nothing_from_outside_and_names_no_place_of_this_machine(tmp_path):
    html = page.write_html(write_run(tmp_path), make_summary(), NOTE).read_text()
    assert not re.search(r"""(src|href)=["'](?!data:|outputs\.html")""", html.replace(ATTACK, ""))
    assert "url(" not in html and "@import" not in html
    assert "/secret/place" not in html and str(tmp_path) not in html


@pytest.mark.parametrize(
    "parts", [{"refinement": REFINEMENT, "rejected": {}}, {"base": estimates(1.0, 0.5)}, {"training": TRAINING}]
)
def test_page_of_a_part_of_the_stages(tmp_path, parts):
    write_text(tmp_path / "config.yaml", yaml.safe_dump(asdict(Config())))
    html = page.write_html(tmp_path, make_summary(**parts), NOTE).read_text()
    assert "None" not in html and "nan" not in html.lower().replace("provenance", "")
    assert "<svg" not in html


def test_a_warning_stands_at_the_top_of_the_page_escaped(tmp_path):
    html = page.write_html(
        write_run(tmp_path), make_summary(refinement=REFINEMENT, warnings=["5 of 8 <b> fell back"]), NOTE
    ).read_text()
    assert '<p class="warning" role="alert">5 of 8 &lt;b&gt; fell back</p>' in html
    assert 'role="alert"' not in page.write_html(tmp_path, make_summary(), NOTE).read_text()


def test_a_chart_that_is_alone_has_the_size_of_others_and_no_sentence_about_probes(tmp_path):
    run = write_run(tmp_path)
    write_text(run / "metrics.csv", "trainer/global_step,train/loss\n1,2.0\n2,1.0\n")
    html = page.write_html(run, make_summary(), NOTE).read_text()
    assert re.search(r"\.charts \{[^}]*repeat\(auto-fill, ", html), "auto-fit would stretch it over the page"
    assert "Training loss" in html and "probes" not in html.split("<h2>Curves</h2>")[1].split("<h2>")[0].lower()


@pytest.mark.slow
def test_text_without_spaces_wraps_wherever_it_may_stand(tmp_path):
    html = page.write_html(write_run(tmp_path), make_summary(), NOTE).read_text()
    wrapping = " ".join(re.findall(r"([^{}]*)\{[^{}]*overflow-wrap: anywhere", html))
    for place in ("h1", "h3", "p", "dt", "dd", "pre", "summary", ".card", ".tag", "td:first-child"):
        assert place in wrapping, place


def test_a_card_repeats_no_figure_and_breaks_no_interval(tmp_path):
    html = page.write_html(write_run(tmp_path), make_summary(base=estimates(0.98, 0.1)), NOTE).read_text()
    assert '<div class="big">98.0%</div>' in html and '<div class="faint">(89.5–99.6)</div>' in html
    html = page.write_html(tmp_path, make_summary(), NOTE).read_text()
    assert '<span class="whole">(+12.0, +28.0)</span>' in html and "+20.4 % of the base's" in html.replace("&#39;", "'")
