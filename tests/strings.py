"""Strings that a tokenizer may get wrong; the same seed gives the same ones."""

from __future__ import annotations

import random

SPECIAL = ("<s>", "</s>", "<unk>", "[SEP]", "[PAD]", "[CLS]", "[MASK]")

# Kinds of text; a generated string joins some pieces of several kinds.
_KINDS: tuple[tuple[str, ...], ...] = (
    (
        "日本で一番高い山は?",
        "吾輩は猫である。",
        "名前はまだ無い",
        "むかしむかし、",
        "東京都庁",
        "々〆ヶ",
    ),
    ("ひらがな", "カタカナ", "ゔ", "ぱぴぷぺぽ", "ー", "っ", "ゃゅょ"),
    ("ﾊﾝｶｸ", "ｶﾞｷﾞｸﾞ", "ﾊﾟ", "｡｢｣､･", "ｰ", "ﾞ"),
    ("ＡＢＣｘｙｚ", "０１２９", "！？＃", "　", "～", "￥", "①㈱㌔㍻℡"),
    ("Hello", "WORLD", "straße", "İstanbul", "ΣΊΣΥΦΟΣ", "ὈΔΥΣΣΕΎΣ", "ΑΣ", "Σ", "ǅ", "ﬁ"),
    ("1234567890", "3.14", "1,000", "-1", "2026-11-23", "¥500", "50%"),
    ("😀", "👨‍👩‍👧‍👦", "🇯🇵", "👍🏽", "❤️", "𠮷野家", "𩸽", "🀄", "\U0010ffff"),
    ("が", "ぱ", "é", "ñ", "゙", "̂", "葛󠄀", "\u200d", "\ufe0f"),
    (" ", "  ", "\t", "\n", "\r\n", "\r", "\u00a0", "\u3000", "\u2028", "\u2003", "\\n", "▁"),
    ("\x00", "\x01", "\x07", "\x1b[31m", "\x7f", "\x85", "\u200b", "\ufeff", "\ufffd", "\ufff9"),
    SPECIAL,
    (
        "< s>",
        "<S>",
        "</S>",
        "[sep]",
        "[SEP",
        "SEP]",
        "<",
        "</",
        "[[SEP]]",
        "<<s>>",
        "<pad>",
        "<0x0A>",
    ),
    (
        "User:",
        "Assistant:",
        "指示:",
        "入力:",
        "応答:",
        "{input}",
        "{}",
        "%s",
        "\\",
        '"',
        "'",
        "&amp;",
    ),
    ("مرحبا", "שלום", "한국어", "ไทย", "हिन्दी", "Привет", "ÄÖÜ", "中文简体"),
)


def generate_strings(count: int = 2000, seed: int = 0) -> list[str]:
    """Return `count` strings: the empty one, every piece by itself, and random concatenations."""
    rng = random.Random(seed)
    strings = ["", *(piece for kind in _KINDS for piece in kind)]
    while len(strings) < count:
        kinds = rng.sample(_KINDS, rng.randint(1, 4))
        pieces = [rng.choice(rng.choice(kinds)) for _ in range(rng.randint(1, 12))]
        if rng.random() < 0.1:
            pieces.append(chr(rng.choice((rng.randrange(0xD800), rng.randrange(0xE000, 0x30000)))))
        strings.append("".join(pieces))
    return strings[:count]
