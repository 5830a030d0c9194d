"""Generates invented words, to teach copying from a text and admitting not to know."""

from __future__ import annotations

from random import Random

from issun.training.embedded.vocabulary import KANJI

_KATAKANA = [chr(code) for code in range(0x30A2, 0x30F4)]
_HIRAGANA = [chr(code) for code in range(0x3042, 0x3093)]


def invented_word(rng: Random) -> str:
    """An invented word of kanji, katakana or hiragana."""
    letters, size = rng.choice(
        ((KANJI, (1, 4)), (KANJI, (2, 2)), (_KATAKANA, (2, 6)), (_HIRAGANA, (2, 5)))
    )
    return "".join(rng.choices(letters, k=rng.randint(*size)))


def invented_noun(rng: Random) -> str:
    """Like `invented_word` without hiragana, which would run into adjacent particles."""
    letters, size = rng.choice(((KANJI, (1, 3)), (KANJI, (2, 2)), (_KATAKANA, (2, 5))))
    return "".join(rng.choices(letters, k=rng.randint(*size)))


def noise(rng: Random) -> str:
    """A few random hiragana."""
    return "".join(rng.choices(_HIRAGANA, k=rng.randint(2, 7)))
