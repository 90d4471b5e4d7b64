"""Hypothesis strategies that several property tests draw from: text as it may come, JSON values, bytes that were damaged."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

# Any character but surrogates, with those often that end lines, end quotes or steer a terminal.
TROUBLE = "\0\x07\x1b\x85\u2028\u202e\ufeff\ufdd0\"'\\\r\n\t,;:{}[]()<>=%$~/|*+?#&🙂ß"
CHARACTERS = st.one_of(st.sampled_from(TROUBLE), st.characters(exclude_categories=("Cs",)))
TEXTS = st.text(CHARACTERS, max_size=20)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(10**400, 10**401),
    st.floats(),
    TEXTS,
    st.sampled_from(["\ud800", "<think>"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda values: st.one_of(st.lists(values, max_size=3), st.dictionaries(TEXTS, values, max_size=3)),
    max_leaves=6,
)


def encoded(value: Any) -> bytes:
    r"""Returns JSON of a value; half of a surrogate pair is written as its \u escape."""
    return json.dumps(value).encode()


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Draws what may become of bytes: cut off, overwritten, doubled, joined by others."""
    start = draw(st.integers(0, len(whole)))
    stop = draw(st.integers(start, min(len(whole), start + 40)))
    middle = draw(
        st.one_of(
            st.binary(max_size=12), st.sampled_from([b"", b"\0" * 9, b"\n", b"}\n", b"{", b'"', b"\xff", b"\xed\xa0\x80"])
        )
    )
    return draw(st.sampled_from([whole[:start], whole[:start] + middle + whole[stop:], whole[:stop] + whole[start:]]))
