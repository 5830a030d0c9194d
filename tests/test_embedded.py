"""The embedded model: what it must be able to do, and how it is shipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from issun.benchmarks.accuracy import Report, evaluate
from issun.benchmarks.asking import Evaluation
from issun.benchmarks.demo import QUESTIONS, ask_all
from issun.benchmarks.questions import Format, Table, read_table
from issun.runtime import Conversation, Model
from issun.runtime.demonstration import EMBEDDED
from issun.runtime.manifest import sha256_of
from issun.training.embedded.held_out import chat_table, short_table
from issun.training.embedded.vocabulary import SPECIAL, template_symbols

ROOT = Path(__file__).parents[1]
# Its generator has learned more since; remove this with the next weights.
TRAINED_EARLIER = pytest.mark.xfail(reason="the packaged model was trained on an earlier text")


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.load()


def greedily(table: Table, kind: Format) -> Evaluation:
    return Evaluation(table=table, formats=(kind,), temperature=0)


@pytest.fixture(scope="module")
def published(model: Model) -> dict[tuple[str, str], float]:
    report = evaluate(model, Evaluation(table=read_table(), samples=200))
    return {(row.question.question, row.format): row.rate for row in report.rows}


@pytest.fixture(scope="module")
def held_out(model: Model) -> Report:
    return evaluate(model, greedily(short_table(77, each=40), "short"))


def test_it_is_small_and_whole(model: Model) -> None:
    files = [file for file in EMBEDDED.iterdir() if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 9_000_000
    for name, info in model.manifest.files.items():
        assert sha256_of(EMBEDDED / name) == info.sha256
    shape = model.manifest.architecture
    layer = 12 * shape.n_embd**2 + 13 * shape.n_embd
    rows = shape.vocab_size + shape.n_positions
    assert rows * shape.n_embd + shape.n_layer * layer + 2 * shape.n_embd <= 8_000_000
    assert model.manifest.precision.name == "int8"


def test_its_tokenizer_is_laid_out_like_the_large_ones(model: Model) -> None:
    tokens = model.manifest.tokens
    assert model.tokenizer.special == SPECIAL
    assert (tokens.unk, tokens.bos, tokens.eos) == (1, 2, 3)
    assert tokens.pieces < model.manifest.architecture.vocab_size
    for text in template_symbols():
        assert len(model.tokenizer.encode(text)) == 1


def test_the_chat_sample_in_nine_of_ten_seeds(model: Model) -> None:
    right = [ask_all(model, seed, quiet=True) for seed in range(1, 11)]
    assert sum(count == len(QUESTIONS) for count in right) >= 9, right


@pytest.mark.parametrize(
    ("question", "form", "least"),
    [
        ("日本で一番広い湖は?", "short", 0.96),
        ("世界で一番高い山は?", "short", 0.86),
        ("日本で一番広い湖は?", "chat", 0.90),
        ("世界で一番高い山は?", "chat", 0.90),
    ],
)
def test_the_published_table(
    published: dict[tuple[str, str], float], question: str, form: str, least: float
) -> None:
    assert published[question, form] >= least


@TRAINED_EARLIER
@pytest.mark.slow
def test_held_out_wordings_and_combinations(held_out: Report) -> None:
    """Greedy decoding; includes every country and prefecture."""
    assert len(held_out.rows) > 600
    assert held_out.rate >= 0.90, held_out.by_category()


@TRAINED_EARLIER
@pytest.mark.slow
def test_held_out_reading(model: Model) -> None:
    """400 texts, since 40 are too few: one model had rates of 85 and 93 %."""
    questions = short_table(77, each=400).questions
    table = Table(tuple(q for q in questions if q.category == "reading"))
    report = evaluate(model, greedily(table, "short"))
    assert len(report.rows) == 400
    assert report.rate >= 0.86


@TRAINED_EARLIER
@pytest.mark.slow
@pytest.mark.parametrize(
    "category",
    ["capital", "continent", "seat", "region", "superlative", "identity", "smalltalk", "unknown"],
)
def test_held_out_categories(held_out: Report, category: str) -> None:
    assert held_out.by_category()[category] >= 0.90


@TRAINED_EARLIER
@pytest.mark.slow
def test_held_out_chats_in_the_role_s_way_of_speaking(model: Model) -> None:
    report = evaluate(model, greedily(chat_table(77, each=150), "chat"))
    assert report.rate >= 0.90, report.by_category()


def test_it_says_what_it_is(model: Model) -> None:
    chat = Conversation(model)
    assert "小さなデモ用のモデル" in str(chat.reply("あなたは誰ですか?"))
    assert "issun export inu-ai/alpaca-guanaco-japanese-gpt-1b -o" in str(
        chat.reply("大きなモデルを使うには?")
    )
    assert "分かりません" in str(chat.reply("量子力学について教えてください。"))
