"""The table that ends the stage."""

from __future__ import annotations

from dgr_lightning.refinement.outcome import RefinementStats, show_refinement


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
