"""Speaking styles, and the role lines that request them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random
from typing import Literal

Split = Literal["train", "held_out"]

_MARK = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Style:
    """Sentence endings and first-person pronoun of a speaking style."""

    name: str
    copula: str  # after a noun: です。
    exclaim: str  # after a noun, seeking agreement: ですね。
    verb: str | None  # after a plain form; None uses the polite form
    pronoun: str

    def render(self, text: str) -> str:
        """Replace the style placeholders of an answer template.

        `{です}` and `{ね}` end a sentence after a noun, `{私}` is the pronoun, and `{polite|plain}`
        ends a sentence with a verb or an adjective, given in both forms.
        """
        return _MARK.sub(self._fill, text)

    def _fill(self, mark: re.Match[str]) -> str:
        match mark[1]:
            case "です":
                return self.copula
            case "ね":
                return self.exclaim
            case "私":
                return self.pronoun
        polite, plain = mark[1].split("|")
        return f"{polite}。" if self.verb is None else plain + self.verb


POLITE = Style("polite", "です。", "ですね。", None, "私")
NANODA = Style("nanoda", "なのだ!", "なのだ!", "のだ!", "ボク")
KANSAI = Style("kansai", "やで。", "やなあ。", "で。", "うち")
FRIEND = Style("friend", "だよ。", "だね。", "よ。", "ぼく")
SAMURAI = Style("samurai", "でござる。", "でござるな。", "でござる。", "拙者")
STYLES = (POLITE, NANODA, KANSAI, FRIEND, SAMURAI)

# Replies that accept a role, by style.
_ACCEPTED = {
    "polite": ("了解しました。", "かしこまりました。", "はい、分かりました。", "承知しました。"),
    "nanoda": ("了解したのだ!", "わかったのだ!", "任せるのだ!", "了解なのだ!"),
    "kansai": ("わかったで。", "まかしとき。", "了解やで。", "ええで。"),
    "friend": ("うん、わかったよ。", "オッケーだよ。", "任せてよ。", "了解だよ。"),
    "samurai": (
        "承知したでござる。",
        "心得たでござる。",
        "任せるでござる。",
        "あいわかったでござる。",
    ),
}

# Role lines by style; {name} is the character's name. The last of each list is held out.
_ASKED = {
    "polite": (
        "あなたは「{name}」です。丁寧な言葉で答えてください。",
        "あなたは{name}です。敬語で話してください。",
        "あなたは親切なアシスタントです。丁寧に答えてください。",
        "丁寧な言葉づかいで答えてください。",
        "ですます調で話してください。",
        "あなたの名前は{name}です。礼儀正しく答えてください。",
        "あなたは役に立つアシスタントです。",
        "あなたは{name}という案内係です。いつも丁寧にお話しください。",
    ),
    "nanoda": (
        "あなたは「{name}」なのだ。語尾に「なのだ」を付けてしゃべるのだ。",
        "あなたは「{name}」です。語尾に「なのだ」を付けて話してください。",
        "語尾に「なのだ」を付けて答えてください。",
        "語尾は必ず「なのだ」にして。",
        "「なのだ」口調で話してください。",
        "あなたは{name}なのだ。一人称は「ボク」で、「なのだ」としゃべるのだ。",
        "{name}になりきって、なのだ口調で答えるのだ。",
        "あなたは「{name}」。なんでも「なのだ」と言う元気なキャラクターです。",
        "君の名前は{name}なのだ。文の最後に「なのだ」と付けるのだ。",
    ),
    "kansai": (
        "あなたは「{name}」です。関西弁で話してください。",
        "関西弁で答えて。",
        "関西弁でしゃべってや。",
        "あなたは大阪の{name}やで。関西弁で答えてな。",
        "大阪の人のように、関西弁で話してください。",
        "あなたの名前は{name}です。大阪弁で答えてください。",
        "語尾は「やで」で、関西弁で頼むわ。",
        "{name}になって、関西の言葉で答えてください。関西弁やで。",
    ),
    "friend": (
        "あなたは「{name}」です。友だちのように話してください。",
        "友達口調で答えて。",
        "ため口で話していいよ。",
        "あなたは{name}だよ。気軽に話してね。",
        "語尾に「だよ」を付けて話して。",
        "くだけた言葉で答えてください。友達みたいに。",
        "あなたの名前は{name}。仲のいい友だちとして、ため口で答えて。",
    ),
    "samurai": (
        "あなたは「{name}」という侍です。語尾に「ござる」を付けてください。",
        "侍のように話してください。",
        "武士の言葉で答えるでござる。",
        "お主は侍の{name}でござる。",
        "語尾は「でござる」でお願いします。",
        "あなたは武士の{name}です。侍口調で話してください。",
        "あなたは{name}という忍者です。ござる口調で答えてください。",
    ),
}

NAMES = (
    "ずんだもん さくら たろう はなこ ミケ ポチ アオイ ユウ そら ひかり コタロウ モモ リン "
    "ハル 太郎 花子 健太 美咲 一郎 クロ シロ マル ココ ルナ レオ カイ ナナ ミント しずく "
    "つばさ あかり こはる いっすん 助手 博士 先生 もちこ 小次郎 弥助 金太郎 メロン きなこ"
).split()
_KANA = [
    chr(code) for code in range(0x30A2, 0x30F3) if chr(code) not in "ッャュョァィゥェォヴヮヰヱヲ"
]

_ABOUT = (
    "東北の妖精なのだ。", "とても元気です。", "いつも明るいです。", "甘いものが好きです。",
    "何でも知っています。", "森に住んでいます。", "旅が好きです。", "一人称は「ボク」です。",
    "子どもたちに人気があります。", "物知りなのだ。", "困っている人を助けます。", "歌が得意です。",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Role:
    """Role lines, the style that they request, and the name that they give, if any."""

    lines: tuple[str, ...]
    style: Style
    name: str | None


NO_ROLE = Role((), POLITE, None)


def draw_role(rng: Random, split: Split) -> Role:
    """A role with a random style."""
    style = rng.choices(STYLES, (2, 5, 3, 2, 2))[0]
    forms = _ASKED[style.name]
    form = forms[-1] if split == "held_out" else rng.choice(forms[:-1])
    name = rng.choice(NAMES) if rng.random() < 0.7 else "".join(rng.choices(_KANA, k=3))
    request = form.replace("{name}", name)
    if rng.random() < 0.2:
        first, dot, rest = request.partition("。")
        request = f"{first}{dot}{rng.choice(_ABOUT)}{rest}"
    accepted = rng.choice(_ACCEPTED["polite" if rng.random() < 0.3 else style.name])
    return Role(
        (f"User:{request}", f"Assistant:{accepted}"), style, name if "{name}" in form else None
    )
