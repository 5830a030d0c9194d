"""Words that there are not: copied out of a text they teach reading, asked about, not knowing."""

from __future__ import annotations

from random import Random

from issun.training.embedded.vocabulary import KANJI

_KATAKANA = [chr(code) for code in range(0x30A2, 0x30F4)]
_HIRAGANA = [chr(code) for code in range(0x3042, 0x3093)]


def made_up(rng: Random) -> str:
    """A word of kanji, katakana or hiragana: an unknown word means not knowing."""
    letters, size = rng.choice(
        ((KANJI, (1, 4)), (KANJI, (2, 2)), (_KATAKANA, (2, 6)), (_HIRAGANA, (2, 5)))
    )
    return "".join(rng.choices(letters, k=rng.randint(*size)))


def made_up_noun(rng: Random) -> str:
    """The same without hiragana, which would run into the particles around it."""
    letters, size = rng.choice(((KANJI, (1, 3)), (KANJI, (2, 2)), (_KATAKANA, (2, 5))))
    return "".join(rng.choices(letters, k=rng.randint(*size)))


def noise(rng: Random) -> str:
    """A few hiragana that mean nothing."""
    return "".join(rng.choices(_HIRAGANA, k=rng.randint(2, 7)))
