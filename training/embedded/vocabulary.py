"""Trains the embedded model's tokenizer: SentencePiece unigram, with the 1b model's layout."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from issun.export.template import ALPACA

PIECES = 5000
SPECIAL = {"[CLS]": 0, "<unk>": 1, "<s>": 2, "</s>": 3, "[PAD]": 4, "[SEP]": 5, "[MASK]": 6}

# All kanji of JIS level 1, kana and ASCII are pieces, so that user input rarely contains <unk>.
KANJI = "".join(
    bytes((row, cell)).decode("euc_jp", "ignore")
    for row in range(0xB0, 0xD0)
    for cell in range(0xA1, 0xFF)
)
_KANA = "".join(map(chr, [*range(0x3041, 0x3095), *range(0x30A1, 0x30F7)]))
_SIGNS = "".join(map(chr, range(0x21, 0x7F))) + "ー・、。「」『』々〜×÷≒…→"


def template_symbols() -> list[str]:
    """The fixed parts of the prompt template; each becomes one token, which keeps prompts short."""
    fixed = [
        part
        for pattern in (ALPACA.with_input, ALPACA.without_input)
        for piece in pattern.removeprefix("<s>").split("[SEP]")
        for part in (piece.split("{")[0],)
    ]
    return [*dict.fromkeys(fixed), ALPACA.newline, "User:", "Assistant:"]


_WORD = re.compile(r"[一-龠々]+|[ぁ-ん]+|[ァ-ヶー]+|[A-Za-z]+")


def words(records: Iterable[str]) -> Iterator[str]:
    """The words of training records, without the template's text.

    A word ends where the script changes, and pieces do not span words: 首都 is one token whatever
    particle follows, and a new wording still consists of known words.
    """
    template = re.compile("|".join(map(re.escape, [*SPECIAL, *template_symbols()])))
    for text in records:
        yield from _WORD.findall(template.sub(" ", text))


def train_vocabulary(records: Iterable[str], path: Path) -> None:
    """Train on `records` and write the model to `path`; the result is deterministic."""
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
