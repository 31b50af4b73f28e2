"""Text of others as it may be shown: what would steer a terminal, or show as nothing, in visible letters."""

from __future__ import annotations

import unicodedata

_STEERING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of control and format characters, lone surrogates, and separators of lines and paragraphs."""

_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
"""Letters and marks that show as nothing."""

_JOINERS = frozenset("\u200c\u200d")
"""They have no width, but belong to the spelling of Persian and Indic words, and hold emoji together."""


def counted(number: int, what: str) -> str:
    """A number of things: "1 image", "2 images"."""
    return f"{number} {what}{'s' * (number != 1)}"


def visible(text: object) -> str:
    """One line of text with what is not to be seen in it escaped as Python does: `\\x1b`, `\\n`, `\\u202e`.

    Accents, letters of all scripts and emoji stay as they are.

    Args:
        text: a name, a path or a message; anything else as `str` has it.
    """
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        each.encode("unicode_escape").decode() if _is_hidden(text, place) else each for place, each in enumerate(text)
    )


def _is_hidden(text: str, place: int) -> bool:
    letter = text[place]
    if letter in _JOINERS:
        return not (_is_joined(text[place - 1 : place]) and _is_joined(text[place + 1 : place + 2]))
    return letter in _BLANK or unicodedata.category(letter) in _STEERING


def _is_joined(neighbour: str) -> bool:
    """Whether a joiner beside it has something to join: a letter, mark or symbol beyond ASCII."""
    return bool(neighbour) and not neighbour.isascii() and unicodedata.category(neighbour)[0] in "LMS"
