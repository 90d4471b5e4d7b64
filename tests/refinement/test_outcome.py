"""The figures of the stage: the table that ends it, and the warning that most rewrites fell back."""

from __future__ import annotations

import pytest

from dgr_lightning.refinement.outcome import RefinementStats, fallback_warning, show_refinement


def test_the_table_shows_figures_before_and_after(screen):
    stats = RefinementStats(
        examples=400, refined=371, fallback={"meta_thinking": 20, "overthinking": 9}, tokens_before=12345, tokens_after=6789
    )
    show_refinement(stats, 8.6401, 0.1523)
    shown = screen.getvalue()
    assert all(piece in shown for piece in ("371 of 400 (92.8%)", "29 of 400", "meta_thinking", "20 of 400", "overthinking"))
    assert all(piece in shown for piece in ("12,345", "6,789", "8.640", "0.152"))


def test_the_table_says_where_no_nll_is_known(screen):
    show_refinement(RefinementStats(0, 0, {}, 0, 0), None, None)
    assert "–" in screen.getvalue() and "nan" not in screen.getvalue()


def stats(refined, fallback, attempted, failed, examples=8):
    return RefinementStats(examples, refined, fallback, 100, 100, attempted, failed)


@pytest.mark.parametrize(
    ("figures", "options", "says"),
    [
        (stats(4, {"empty": 4}, 8, 4), {}, None),
        (stats(3, {"empty": 3, "guard": 2}, 8, 5), {}, "5 of 8 rewrites fell back to the original (empty 3, guard 2): most"),
        (stats(0, {"empty": 8}, 8, 8), {}, "vanilla in fact"),
        (stats(3, {"guard": 5}, 8, 5), {"on_failure": "drop"}, "5 of 8 rewrites were dropped (guard 5): the set is 3 examples"),
        (stats(0, {"empty": 2}, 2, 2), {}, "2 of 2 rewrites"),  # refine.fraction=0.25
        (stats(8, {"refusal_lost": 6}, 8, 0), {}, None),  # refine.fallback_unit=part: every trace is rewritten
        (stats(2, {"unmatched": 6}, 8, 0), {"paired": True}, None),
        (
            stats(0, {"empty": 6, "unmatched": 1}, 8, 6),
            {"paired": True},
            "6 of 8 rewrites failed quality control (empty 6): the",
        ),
        (stats(0, {"meta_thinking": 8}, 0, 0), {"on_failure": "drop"}, None),  # filters-only rewrites nothing
        (stats(0, {}, 0, 0, examples=0), {}, None),
    ],
)
def test_a_run_in_which_most_rewrites_failed_says_so(figures, options, says):
    warning = fallback_warning(figures, **{"on_failure": "keep"} | options)
    assert warning is None if says is None else says in warning
