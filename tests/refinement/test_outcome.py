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


def stats(refined, fallback, attempted, examples=8):
    return RefinementStats(examples, refined, fallback, 100, 100, attempted)


@pytest.mark.parametrize(
    ("figures", "on_failure", "says"),
    [
        (stats(4, {"empty": 4}, 8), "keep", None),
        (
            stats(3, {"empty": 3, "meta_thinking": 2}, 8),
            "keep",
            "5 of 8 rewrites fell back to the original (empty 3, meta_thinking 2)",
        ),
        (stats(0, {"empty": 8}, 8), "keep", "vanilla in fact"),
        (stats(3, {"guard": 5}, 8), "drop", "5 of 8 rewrites were dropped (guard 5): the set is 3 examples"),
        (stats(0, {"empty": 2}, 2), "keep", "2 of 2 rewrites"),  # refine.fraction=0.25
        (stats(2, {"unmatched": 6}, 8), "drop", None),
        (stats(0, {"meta_thinking": 8}, 0), "drop", None),  # filters-only rewrites nothing
        (stats(0, {}, 0, examples=0), "keep", None),
    ],
)
def test_a_run_in_which_most_rewrites_fell_back_says_so(figures, on_failure, says):
    warning = fallback_warning(figures, on_failure)
    assert warning is None if says is None else says in warning
