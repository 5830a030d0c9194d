"""Generates short texts with questions about them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from issun.training.embedded.facts import COUNTRIES, PREFECTURES
from issun.training.embedded.invented import invented_noun, noise
from issun.training.embedded.outside_phrases import TOPICS
from issun.training.embedded.questions import QAPair
from issun.training.embedded.styles import NAMES, Split

_PEOPLE = (
    "太郎 花子 健太 美咲 一郎 次郎 さくら 翔太 結衣 大輔 直子 真由美 陽子 由美 浩 正夫 良子 千夏 拓也 "
    "優子 先生 祖母 祖父 母 父 兄 姉 妹 弟 田中さん 佐藤さん 鈴木さん 高橋さん 山田さん 中村さん 小林さん "
    "加藤さん 木村さん 林さん 清水さん 山口さん 森さん 私 僕 彼 彼女 店長 社長 医者 校長 向かいの人 若い人 子ども 妻 夫 "
    "友だち 運転手 駅員 大家さん 課長 いとこ おじ おば"
).split()
_PEOPLE_HELD_OUT = "和也 奈々 渡辺さん 石井さん 悟 春香 隣の人 部長".split()
_THINGS = (
    "傘 帽子 本 自転車 時計 鞄 靴 花 ケーキ パン りんご みかん 手紙 辞書 カメラ 机 椅子 眼鏡 財布 人形 "
    "絵 ノート 鉛筆 切符 お茶 お菓子 地図 ギター 毛布 手袋 マフラー コート お弁当 風船 写真 電池 卵 牛乳 "
    "魚 ぶどう 雑誌 箱 皿 コップ 石鹸 鏡"
).split()
_THINGS_HELD_OUT = "扇子 水筒 ピアノ 消しゴム 桃 望遠鏡 枕".split()
_COLOURS = "赤い 青い 白い 黒い 黄色い 緑の 茶色い 大きな 小さな 新しい 古い 丸い".split()
_PLACES = (
    "公園 駅 図書館 学校 店 市場 病院 海 山 川 動物園 美術館 映画館 郵便局 銀行 空港 港 神社 寺 広場 "
    "食堂 本屋 花屋 パン屋 台所 庭 教室 会社 体育館 温泉 京都 大阪 東京 名古屋 札幌 福岡 仙台 横浜 神戸 沖縄"
).split()
_PLACES_HELD_OUT = "博物館 牧場 遊園地 城 金沢 長崎 魚屋".split()
# A text may contain any word: the answer must be copied from it, not known.
_MORE = {
    "who": NAMES,
    "what": TOPICS,
    "where": [*(c.capital for c in COUNTRIES), *(p.name for p in PREFECTURES)],
    "when": [],
}
_MADE_UP = {"who": ("{}", "{}", "{}さん"), "what": ("{}",), "where": ("{}", "{}", "{}屋", "{}市")}
_TIMES = (
    "昨日 今日 今朝 先週 先月 去年 月曜日 火曜日 水曜日 木曜日 金曜日 土曜日 日曜日 春 夏 秋 冬 朝 夕方 "
    "お正月 夏休み 誕生日"
).split()
_ANIMALS = "猫 犬 うさぎ 鳥 馬 牛 羊 金魚 亀 豚 猿 狐".split()
# Polite past form, and plain form before のは.
_ACTS = (
    ("買いました", "買った"), ("見つけました", "見つけた"), ("もらいました", "もらった"),
    ("売りました", "売った"), ("借りました", "借りた"), ("拾いました", "拾った"),
    ("忘れました", "忘れた"), ("なくしました", "なくした"), ("選びました", "選んだ"),
    ("落としました", "落とした"), ("壊しました", "壊した"), ("使いました", "使った"),
    ("見ました", "見た"), ("作りました", "作った"), ("食べました", "食べた"), ("飲みました", "飲んだ"),
    ("読みました", "読んだ"), ("書きました", "書いた"), ("洗いました", "洗った"), ("運びました", "運んだ"),
    ("捨てました", "捨てた"), ("直しました", "直した"), ("描きました", "描いた"), ("育てました", "育てた"),
    ("送りました", "送った"), ("届けました", "届けた"), ("隠しました", "隠した"), ("集めました", "集めた"),
)  # fmt: skip


class _Fact(NamedTuple):
    """A sentence of a text, and questions about it: (question, topic of the answer, answer)."""

    sentence: str
    questions: list[tuple[str, str, str]]


def _act(rng: Random, draw: Callable[..., str]) -> _Fact:
    who, what, where, when = draw("who"), draw("what"), draw("where"), draw("when")
    if rng.random() < 0.4:
        what = rng.choice(_COLOURS) + what
    polite, plain = rng.choice(_ACTS)
    ask = rng.choice((f"{polite}か?", f"{plain}の?", f"{plain}?", f"{polite}か"))
    # Place and time are optional, and the order varies.
    at, on = f"{where}で", f"{when}、"
    has_where, has_when = rng.random() < 0.7, rng.random() < 0.5
    middle = at if has_where else ""
    form = rng.randrange(3)
    if form == 0:
        sentence = f"{on if has_when else ''}{who}は{middle}{what}を{polite}。"
    elif form == 1:
        sentence = f"{who}は{on if has_when else ''}{middle}{what}を{polite}。"
    else:
        sentence = f"{middle}{who}が{what}を{polite}。"
        has_when = False
    questions = [
        (f"{who}は何を{ask}", f"{who}が{plain}のは", what),
        (f"{who}が{plain}ものは何ですか?", f"{who}が{plain}のは", what),
        (f"誰が{what}を{ask}", f"{what}を{plain}のは", who),
        (f"{what}を{plain}のは誰ですか?", f"{what}を{plain}のは", who),
        (f"{who}が{plain}のは何?", f"{who}が{plain}のは", what),
        (f"{who}が{plain}のは何ですか?", f"{who}が{plain}のは", what),
        (f"{who}は何を{plain}?", f"{who}が{plain}のは", what),
        (f"何を{ask}", f"{who}が{plain}のは", what),
    ]
    if has_where:
        questions += [
            (f"{who}はどこで{what}を{ask}", f"{who}が{what}を{plain}のは", where),
            (f"{who}が{what}を{plain}場所はどこ?", f"{who}が{what}を{plain}のは", where),
            (f"{who}が{what}を{plain}のはどこ?", f"{who}が{what}を{plain}のは", where),
            (f"{who}はどこにいましたか?", f"{who}がいたのは", where),
        ]
    if has_when:
        questions.append((f"{who}はいつ{what}を{ask}", f"{who}が{what}を{plain}のは", when))
    return _Fact(sentence, questions)


def _going(rng: Random, draw: Callable[..., str]) -> _Fact:
    who, where, when = draw("who"), draw("where"), draw("when")
    by = rng.choice("電車 バス 車 自転車 船 タクシー 飛行機".split())
    polite, plain = rng.choice(
        (("行きました", "行った"), ("来ました", "来た"), ("出かけました", "出かけた"))
    )
    has_when = rng.random() < 0.5
    start = f"{when}、{who}は" if has_when else f"{who}は"
    questions = [
        (f"{who}はどこに{polite}か?", f"{who}が{plain}のは", where),
        (f"{who}が{plain}のはどこ?", f"{who}が{plain}のは", where),
        (f"{who}は何で{where}に{polite}か?", f"{who}が{where}に{plain}のは", by),
        (f"{where}に{plain}のは誰?", f"{where}に{plain}のは", who),
        (f"誰が{where}に{polite}か?", f"{where}に{plain}のは", who),
    ]
    if has_when:
        questions.append((f"{who}はいつ{where}に{polite}か?", f"{who}が{where}に{plain}のは", when))
    return _Fact(f"{start}{by}で{where}に{polite}。", questions)


def _age(rng: Random, draw: Callable[..., str]) -> _Fact:
    who, age = draw("who"), f"{rng.randint(3, 90)}歳"
    return _Fact(
        rng.choice((f"{who}は{age}です。", f"{who}は今年{age}になりました。")),
        [
            (f"{who}は何歳ですか?", f"{who}の年齢は", age),
            (f"{who}の年齢は?", f"{who}の年齢は", age),
            (f"{who}はいくつ?", f"{who}の年齢は", age),
        ],
    )


def _colour(rng: Random, draw: Callable[..., str]) -> _Fact:
    what, colour = draw("what"), rng.choice("赤 青 白 黒 黄色 緑 茶色 紫 灰色 ピンク".split())
    return _Fact(
        rng.choice((f"{what}は{colour}です。", f"{what}の色は{colour}です。")),
        [
            (f"{what}は何色ですか?", f"{what}の色は", colour),
            (f"{what}の色は?", f"{what}の色は", colour),
            (f"{what}は何色?", f"{what}の色は", colour),
        ],
    )


def _count(rng: Random, draw: Callable[..., str]) -> _Fact:
    where, animal, number = draw("where"), rng.choice(_ANIMALS), rng.randint(2, 12)
    sentence = rng.choice(
        (f"{where}に{animal}が{number}匹います。", f"{where}には{animal}が{number}匹いました。")
    )
    return _Fact(
        sentence,
        [
            (f"{where}に{animal}は何匹いますか?", f"{where}にいる{animal}は", f"{number}匹"),
            (f"{animal}は何匹?", f"{where}にいる{animal}は", f"{number}匹"),
            (f"{animal}は何匹いますか?", f"{where}にいる{animal}は", f"{number}匹"),
            (f"{where}に何匹いますか?", f"{where}にいる{animal}は", f"{number}匹"),
            (f"{where}に何匹いる?", f"{where}にいる{animal}は", f"{number}匹"),
            (f"{animal}がいるのはどこ?", f"{animal}がいるのは", where),
            (f"{animal}はどこにいますか?", f"{animal}がいるのは", where),
            (f"{where}にいるのは何?", f"{where}にいるのは", animal),
        ],
    )


def _price(rng: Random, draw: Callable[..., str]) -> _Fact:
    what, price = draw("what"), rng.randint(1, 99) * 10
    return _Fact(
        rng.choice((f"{what}は{price}円です。", f"{what}の値段は{price}円です。")),
        [
            (f"{what}はいくらですか?", f"{what}の値段は", f"{price}円"),
            (f"{what}の値段は?", f"{what}の値段は", f"{price}円"),
            (f"{what}は何円?", f"{what}の値段は", f"{price}円"),
        ],
    )


def _liking(rng: Random, draw: Callable[..., str]) -> _Fact:
    who, what = draw("who"), rng.choice((draw("what"), rng.choice(_ANIMALS)))
    return _Fact(
        rng.choice((f"{who}は{what}が好きです。", f"{who}が好きなのは{what}です。")),
        [
            (f"{who}は何が好きですか?", f"{who}が好きなのは", what),
            (f"{who}が好きなものは?", f"{who}が好きなのは", what),
            (f"{what}が好きなのは誰?", f"{what}が好きなのは", who),
        ],
    )


def _living(rng: Random, draw: Callable[..., str]) -> _Fact:
    who, where = draw("who"), draw("where")
    near = rng.choice(("", "の近く"))
    return _Fact(
        f"{who}は{where}{near}に住んでいます。",
        [
            (f"{who}はどこに住んでいますか?", f"{who}が住んでいるのは", f"{where}{near}"),
            (f"{who}が住んでいる場所は?", f"{who}が住んでいるのは", f"{where}{near}"),
            (f"{where}{near}に住んでいるのは誰?", f"{where}{near}に住んでいるのは", who),
        ],
    )


_FACTS = (_act, _act, _act, _act, _count, _price, _liking, _living, _going, _age, _colour)
# The last of each list is held out.
_INSTRUCTIONS = (
    "{q}", "{q}", "{q}", "{q}", "次の文章を読んで答えてください。{q}", "文章を読んで質問に答えて。{q}", "入力によると、{q}",
    "この文について答えて。{q}", "文章から答えてください。{q}", "入力された文を読み、質問に答えなさい。{q}",
    "下の文章を読んでください。{q}", "{q}文章から探してください。", "{q}入力から答えて", "文章の内容について質問です。{q}",
    "次の文の中から答えを見つけて。{q}", "与えられた文章によれば、{q}", "以下を読んで。{q}", "読解問題です。{q}",
    "この文章では、{q}", "以下の文章について、質問に回答してください。{q}", "次の文をもとに答えなさい。{q}",
    "文を読んで、{q}", "この文章に書かれていることから答えてください。{q}", "本文を参考に回答して。{q}", "質問:{q}",
    "以下の文に基づいて答えてください。{q}",
)  # fmt: skip
_INLINE = (
    "「{t}」{q}", "「{t}」という文で、{q}", "{t}{q}", "{t}では、{q}", "次の文章を読んで答えて。{t}{q}", "「{t}」について、{q}",
    "文章「{t}」{q}", "{t}さて問題、{q}", "読んでください。「{t}」{q}", "文:{t}質問:{q}", "{t}ここで質問です。{q}",
    "「{t}」を読んで答えて。{q}", "この文から答えて。{t}{q}",
    "次の文を読んで。{t}{q}",
)  # fmt: skip

NOT_WRITTEN = "それは文章に書いて{いません|ない}"


def reading(rng: Random, split: Split, *, inline: bool = False) -> QAPair:
    """A question about a text of one to three sentences; `inline` puts the text in the message."""
    held_out = split == "held_out"
    used: set[str] = set()

    def draw(kind: str) -> str:
        words, extra = {
            "who": (_PEOPLE, _PEOPLE_HELD_OUT),
            "what": (_THINGS, _THINGS_HELD_OUT),
            "where": (_PLACES, _PLACES_HELD_OUT),
            "when": (_TIMES, _TIMES),
        }[kind]
        pool = [w for w in (extra if held_out and rng.random() < 0.3 else words) if w not in used]
        word = rng.choice(pool or words)
        if not held_out and kind != "when" and rng.random() < 0.5:
            word = rng.choice(_MORE[kind])
            if rng.random() < 0.6:
                word = rng.choice(_MADE_UP[kind]).format(invented_noun(rng))
            if word in used or word in extra:
                return draw(kind)
        used.add(word)
        return word

    facts = [rng.choice(_FACTS)(rng, draw) for _ in range(rng.choices((1, 2, 3), (5, 4, 2))[0])]
    asked = [question for fact in facts for question in fact.questions]
    # Two sentences with the same verb or animal have questions with two answers.
    answers = {question: {a for q, _, a in asked if q == question} for question, _, _ in asked}
    clear = [
        [question for question in fact.questions if len(answers[question[0]]) == 1]
        for fact in facts
    ]
    question, topic, answer = rng.choice(rng.choice([rows for rows in clear if rows]))
    text = "".join(fact.sentence for fact in facts)
    reply = f"{topic}{answer}{{です}}"
    right: tuple[str, ...] = (answer,)
    if rng.random() < 0.08:
        stranger = draw("who")
        question = rng.choice(
            (
                f"{stranger}は何をしましたか?",
                f"{stranger}はどこにいますか?",
                f"{stranger}が好きなものは?",
            )
        )
        reply, right = NOT_WRITTEN, ("書いていません", "書いてない")
    if inline:
        form = _INLINE[-1] if held_out else rng.choice(_INLINE[:-1])
        return QAPair("reading", form.format(t=text, q=question), reply, right)
    unseen = held_out and rng.random() < 0.5
    form = _INSTRUCTIONS[-1] if unseen else rng.choice(_INSTRUCTIONS[:-1])
    if not held_out and rng.random() < 0.1:
        form = noise(rng) + "。" + form
    return QAPair("reading", form.format(q=question), reply, right, input=text)
