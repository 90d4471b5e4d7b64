"""Meta-thinking: a model that was asked to rewrite a text talks about the rewriting, or about the text, instead of doing it.

DGR (arXiv 2602.02136) drops such rewrites by a phrase list that is not published; SDFT's ban list (arXiv 2402.13669) is its
ancestor. Ours is `prompts/meta_thinking.txt`. An entry is a line:

    in my own words                              a phrase, as whole words with any white space between them
    /the (original|given) {text}/                a regular expression; a space stands for any white space
    {text} = reasoning|answer                    a name for a part of the regular expressions below it

Case does not count, and a typographic apostrophe is a plain one. A pattern must not take exponential time: each of a user's
list is tried on a few texts before anything is generated (`check_patterns`).
"""

from __future__ import annotations

import re
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from dgr_lightning.errors import UserError, one_line
from dgr_lightning.prompts.templates import SHIPPED
from dgr_lightning.text_files import read_lines

SHIPPED_PATTERNS = SHIPPED / "meta_thinking.txt"

_DEFINITION = re.compile(r"\{([a-z_]+)\}\s*=\s*(\S.*)")
# A regular expression apart: an escape, a set of characters, the opening of a group, white space, any other character.
_PIECE = re.compile(r"(\\.)|(\[\^?\]?(?:\\.|[^\]\\])*\])|(\(\?(?:P[<=>]|<?[=!]|[:#(]))|( +)|(.)", re.DOTALL)
_TRIAL_SECONDS = 2.0
_TRIALS = ("a" * 40, "word " * 40, "the reasoning explains that, and then it says that. " * 20, "\n" * 40, "1, 2, 3. " * 40)
_LONGEST = 100_000  # characters of a pattern, which names in names would make any number of
_SHOWN = 80
_LONG_WORD = re.compile(r"\w{6,}")
_NAME = re.compile(r"\{([a-z_]+)\}")


class MetaThinking:
    """A list of meta-thinking patterns.

    Attributes:
        entries: the patterns as regular expressions, names replaced, in the order of the file.
    """

    def __init__(self, entries: Sequence[str]) -> None:
        """Takes regular expressions; the usual way is `load`."""
        self.entries = tuple(entries)
        self._patterns = [_whole_words(entry) for entry in self.entries]
        # All in one, as a quick first look; numbered groups would mean others' there.
        numbered = any(pattern.groups for pattern in self._patterns)
        self._any = None if numbered else _whole_words("|".join(f"(?:{entry})" for entry in self.entries))

    @classmethod
    def load(cls, path: str | None) -> MetaThinking:
        """Reads a list; blank lines and lines that begin with # are skipped.

        Args:
            path: a user's file; None reads the shipped one.

        Raises:
            UserError: the file is missing, is not UTF-8 text, holds no pattern, or one that is not a regular expression.
        """
        file = Path(path).expanduser() if path is not None else SHIPPED_PATTERNS
        place = f"refine.meta_thinking={file}"
        names: dict[str, str] = {}
        entries = []
        for line in read_lines(place, file):
            if defined := _DEFINITION.fullmatch(line):
                names[defined[1]] = f"(?:{_named(place, line, _spaced(defined[2]), names)})"
            else:
                entries.append(_entry(place, line, names))
        if not entries:
            raise UserError(f"{place}: holds no phrase and no pattern; write one a line, or null for the shipped list.")
        return cls(entries)

    def found(self, text: str) -> set[str]:
        """Returns what the patterns match in a text, in lower case with single spaces."""
        folded = _casefolded(text)
        if self._any is not None and self._any.search(folded) is None:
            return set()
        return {" ".join(match[0].split()) for pattern in self._patterns for match in pattern.finditer(folded)}

    def found_beyond(self, text: str, known: str) -> set[str]:
        """Returns what is found in a text and not forgiven for what the question or the source says.

        Forgiven is what they say in the same words, and what they speak of: where all long words of a match are theirs, as in
        "the user wants me to paraphrase a page" after the question "Paraphrase this page".

        Args:
            text: what the model wrote.
            known: the question and the source.
        """
        if not (found := self.found(text)):
            return found
        words = set(_LONG_WORD.findall(_casefolded(known)))

        def is_theirs(match: str) -> bool:
            long_words = _LONG_WORD.findall(match)
            return bool(long_words) and words.issuperset(long_words)

        return {match for match in found - self.found(known) if not is_theirs(match)}


def check_patterns(path: str | None) -> None:
    """Checks a list, and that none of a user's patterns takes seconds on a text of a few hundred characters.

    Args:
        path: as for `MetaThinking.load`.

    Raises:
        UserError: as there, or naming the pattern that is too slow.
    """
    meta = MetaThinking.load(path)
    if path is None:
        return
    for entry in meta.entries:
        try:
            with _interrupted_after(_TRIAL_SECONDS):
                for text in _TRIALS:
                    MetaThinking([entry]).found(text)
        except _TooSlowError:
            raise UserError(
                f"refine.meta_thinking={path}: the pattern {entry} takes more than {_TRIAL_SECONDS:g} s on a short text. "
                "Repetitions inside repetitions, such as (a+)+, try every way to divide the text; write it without."
            ) from None


class _TooSlowError(Exception):
    """A pattern ran out of time."""


@contextmanager
def _interrupted_after(seconds: float) -> Iterator[None]:
    """Raises `_TooSlowError` in the block after some seconds; only the main thread can be interrupted so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise _TooSlowError

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _entry(place: str, line: str, names: dict[str, str]) -> str:
    """Returns the regular expression of a line."""
    if not (len(line) > 1 and line[0] == line[-1] == "/"):
        return r"\s+".join(re.escape(word) for word in _casefolded(line).split())
    entry = _named(place, line, _spaced(line[1:-1]), names)
    try:
        matches_nothing = _whole_words(entry).search("") is not None
    except (re.error, OverflowError, RecursionError) as error:
        shown = one_line(line, _SHOWN)
        raise UserError(f"{place}: {shown} is not a regular expression ({error}); a phrase stands without slashes.") from error
    if matches_nothing:
        raise UserError(f"{place}: {line} matches where there is no text; write what it should find.")
    return entry


def _named(place: str, line: str, text: str, names: dict[str, str]) -> str:
    def named(match: re.Match[str]) -> str:
        if match[1] not in names:
            raise UserError(f"{place}: {line}: no line above it says what {match[0]} is; write {match[0]} = one|another.")
        return names[match[1]]

    whole = _NAME.sub(named, text)
    if len(whole) > _LONGEST:
        shown = one_line(line, _SHOWN)
        raise UserError(f"{place}: {shown}: with its names replaced it has {len(whole):,} characters; shorten it.")
    return whole


def _spaced(text: str) -> str:
    """Returns a regular expression for casefolded text: letters folded, but no escape; a space for any white space."""

    def spaced(match: re.Match[str]) -> str:
        escape, characters, group, space, other = match.groups()
        if characters:
            return re.sub(r"(\\.)|([^\\]+)", lambda part: part[1] or _casefolded(part[2]), characters)
        return escape or group or (r"\s+" if space else _casefolded(other))

    return _PIECE.sub(spaced, text)


def _whole_words(pattern: str) -> re.Pattern[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of what "[[" may mean to a later Python
        return re.compile(rf"(?<!\w)(?:{pattern})(?!\w)")


def _casefolded(text: str) -> str:
    return text.replace("’", "'").casefold()
