"""Texts that are hard for a tokenizer, made up from characters of every kind."""

from __future__ import annotations

import json
import random
import unicodedata
from functools import cache
from pathlib import Path

from msgspec.structs import replace

from issun.export.tokenizer_json import read_json_tokenizer
from issun.runtime.demonstration import EMBEDDED
from issun.runtime.manifest import Manifest, read_manifest
from tests.json_tokenizers import write_folder
from tests.web.node import ROOT

PLAIN = (ROOT / "export" / "calibration.txt").read_text(encoding="utf-8")

FIXED = [
    *("", " ", "　", "  前後の  空白　　", "ｶﾞｷﾞｸﾞ ﾊﾝｶｸ", "ＡＢＣ１２３！？", "㈱㍻①②Ⅳ㍍", "ﬁ ﬀ ſ"),
    *(
        "が (結合) は\u3099",
        "日本😀語🎉👨‍👩‍👧‍👦🇯🇵👍🏽",
        "😀😀😀",
        "<s></s>[SEP]<unk>[PAD]",
        "<s>日本",
    ),
    *(
        "改行\\n改行",
        "\\n",
        "a\nb\tc\r\nd",
        "\u0000x\u200bゼロ幅\ufeff",
        "\u00a0nbsp",
        "…‥—―～〜－",
    ),
    *(
        "①㊤㍿℡™",
        "Ångström ÅÅ",
        "한국어 العربية हिन्दी",
        "𠮷野家で𩸽",
        "゛゜ﾞﾟ",
        "\u0301abc",
        "½ ⅓ x² H₂O",
    ),
    *("▁▁ 下線▁文字", "ー" * 50, "あ" * 300, "w" * 200, "User:こんにちは\\nAssistant:はい"),
    *("1,234.56円　10％", "\ud83d", "x\ud83dy", "\ue000私用", "\U0010ffff", "﷽", "İıßẞΣςΑΣ"),
    "\u1680\u2003\u2028\u2029\u3000|",
]
_HALF = [chr(c) for c in range(0xFF00, 0xFFEF)] + list(" 　\t\n\u200d\ufe0f\u3099\u309aﾞﾟ▁")
_TEMPLATES = [
    *(
        "<s>",
        "</s>",
        "[SEP]",
        "User:",
        "\\n",
        "😀",
        "  ",
        "Assistant:",
        "▁",
        "\\n指示:\\n",
        "\\n入力:\\n",
    ),
    "\\n以下は、タスクを説明する指示です。要求を適切に満たす応答を書きなさい。\\n",
]


@cache
def _any_characters() -> list[str]:
    codes = (chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000)
    return [c for c in codes if unicodedata.category(c) not in ("Cn", "Co")]


def made_up(count: int, plain: str, seed: int = 7) -> list[str]:
    """Random texts: parts of `plain`, half-width and any characters, parts of templates."""
    rng = random.Random(seed)
    return ["".join(_part(rng, plain) for _ in range(rng.randint(1, 6))) for _ in range(count)]


def _part(rng: random.Random, plain: str) -> str:
    kind = rng.random()
    if kind < 0.4:
        start = rng.randrange(max(1, len(plain) - 40))
        return plain[start : start + rng.randint(1, 40)]
    if kind < 0.7:
        return "".join(rng.choices(_HALF, k=rng.randint(1, 12)))
    if kind < 0.9:
        return "".join(rng.choices(_any_characters(), k=rng.randint(1, 6)))
    return rng.choice(_TEMPLATES)


def json_bundle(kind: str, folder: Path, *, lines: int = 300) -> Manifest:
    """Write a bundle's tokenizer.json of a kind to `folder`; its manifest for the harness."""
    path = write_folder(kind, PLAIN.splitlines()[:lines], folder) / "tokenizer.json"
    described = json.loads(path.read_text(encoding="utf-8"))
    for token in described["added_tokens"]:
        token["rstrip"] = False  # such tokens are refused
        token["normalized"] &= kind != "llama_bpe"  # likewise, with its normalizer
    path.write_text(json.dumps(described), encoding="utf-8")
    named = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    name = named.get("tokenizer_class", "").removesuffix("Fast")
    content, tokens, _ = read_json_tokenizer(folder / "tokenizer.json", name, 10**6)
    (folder / "tokenizer.json").write_bytes(content)
    return replace(read_manifest(EMBEDDED), tokens=tokens)
