"""The embedded model's tokenizer: SentencePiece unigram, laid out like the 1b model's."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from issun.export.template import ALPACA

PIECES = 4600
SPECIAL = {"[CLS]": 0, "<unk>": 1, "<s>": 2, "</s>": 3, "[PAD]": 4, "[SEP]": 5, "[MASK]": 6}

# Kanji of JIS level 1, kana and ASCII are all pieces: what a user types is rarely <unk>.
KANJI = "".join(
    bytes((row, cell)).decode("euc_jp", "ignore")
    for row in range(0xB0, 0xD0)
    for cell in range(0xA1, 0xFF)
)
_KANA = "".join(map(chr, [*range(0x3041, 0x3095), *range(0x30A1, 0x30F7)]))
_SIGNS = "".join(map(chr, range(0x21, 0x7F))) + "ー・、。「」『』々〜×÷≒…→"


def template_symbols() -> list[str]:
    """The fixed stretches of the prompt template, each one token, so that prompts are short."""
    stretches = [
        part
        for pattern in (ALPACA.with_input, ALPACA.without_input)
        for piece in pattern.removeprefix("<s>").split("[SEP]")
        for part in (piece.split("{")[0],)
    ]
    return [*dict.fromkeys(stretches), ALPACA.newline, "User:", "Assistant:"]


_WORD = re.compile(r"[一-龠々]+|[ぁ-ん]+|[ァ-ヶー]+|[A-Za-z]+")


def words(records: Iterable[str]) -> Iterator[str]:
    """The words of training records, one after the other, without the template's.

    A word ends where its script changes, so no piece reaches further: 首都 is one token whatever
    particle follows, and a new wording still holds known words.
    """
    template = re.compile("|".join(map(re.escape, [*SPECIAL, *template_symbols()])))
    for text in records:
        yield from _WORD.findall(template.sub(" ", text))


def train_vocabulary(records: Iterable[str], path: Path) -> None:
    """Train on `records` and write `path`; the same records give the same model."""
    import sentencepiece as spm  # noqa: PLC0415 - slow to import

    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=words(records),
        model_writer=model,
        model_type="unigram",
        vocab_size=PIECES,
        character_coverage=1.0,
        required_chars=KANJI + _KANA + _SIGNS + "▁",
        max_sentencepiece_length=8,
        split_digits=True,
        add_dummy_prefix=False,
        user_defined_symbols=template_symbols(),
        control_symbols=["[CLS]", "[SEP]", "[MASK]"],
        unk_id=1,
        bos_id=2,
        eos_id=3,
        pad_id=4,
        pad_piece="[PAD]",
        num_threads=1,
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())
