"""`issun export --draft`: the bundle has a table of draft tokens from its own text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from issun.export import ExportOptions, draft, export
from issun.runtime import BundleError, Conversation, Model, ParameterError, SamplingParams
from issun.runtime.decoding.answer import Completion
from issun.runtime.decoding.draft_table import read_draft_table
from issun.runtime.decoding.generate import Logprob, Timings
from issun.runtime.manifest import DRAFT_NAME, read_manifest, verify_hashes
from tests.needs import posix

TEXT = "日本で一番高い山は何ですか。猫について書いてください。好きな食べ物は何ですか。"


@pytest.fixture(scope="module")
def drafted(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Path:
    folder = tmp_path_factory.mktemp("drafted")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    options = ExportOptions(kv_cache="int8", draft=True, calibrate=folder / "text.txt")
    stages: dict[str, tuple[int, int]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draft, "_TOKENS", 200)
        export(
            shared / "checkpoints" / "ja-small",
            folder / "bundle",
            options,
            progress=lambda stage, done, total: stages.__setitem__(stage, (done, total)),
        )
    assert stages["draft"] == (800, 800)
    return folder / "bundle"


def test_the_table_is_in_the_manifest(drafted: Path) -> None:
    manifest = read_manifest(drafted)
    # Two entries of 12 bytes a token; the last 16 answers, of at most 100 tokens each, go beyond.
    tokens = 200 + 100 * 16
    assert 0 < manifest.files[DRAFT_NAME].size <= 2 * tokens * 12
    verify_hashes(drafted, manifest)


class Answering:
    """A model whose every answer is 5, 6 and the end token, with 50, 60 and 70 as the likeliest."""

    default_params = SamplingParams()
    manifest = SimpleNamespace(architecture=SimpleNamespace(n_positions=40))

    def __init__(self) -> None:
        self.answered: list[list[int]] = []

    def __enter__(self) -> Answering:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def prompt(self, message: str) -> list[int]:
        return [1] * len(message) + [2]

    def generate_many(
        self,
        prompts: list[list[int]],
        params: list[SamplingParams],
        *,
        slots: int,
        on_complete: Callable[[int, Completion], None],
    ) -> None:
        assert all(one.logprobs == 1 for one in params)
        logprobs = tuple(Logprob(-1.0, {token: -0.5}) for token in (50, 60, 70))
        for index in range(len(prompts)):
            self.answered.append(prompts[index])
            on_complete(index, Completion("", [5, 6], "stop", Timings(), logprobs=logprobs))


def test_a_token_is_what_was_likeliest_after_the_two_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draft.Model, "load", lambda *_, **__: Answering())
    messages = draft.draft_messages(TEXT)
    draft.write_drafts(tmp_path, messages, lambda stage, done, total: None)
    table = read_draft_table(tmp_path / DRAFT_NAME, 100)
    assert (table.after_pair(2, 5), table.after_pair(5, 6)) == (60, 70)
    assert (table.after_token(5), table.after_token(6)) == (60, 70)
    assert len(table) == 4


def test_a_bundle_with_a_table_drafts_from_the_first_answer_on(drafted: Path) -> None:
    prompt = "猫について書いてください。"
    params = SamplingParams(temperature=0, min_new_tokens=20, max_new_tokens=20)
    with Model.load(drafted, threads=1) as model:
        model.decoder.row_cost = 0.04
        table, rows, forward = model.draft_table, list[int](), model.decoder.forward

        def counted(cache: object, chunks: list[list[int]], wanted: list[int]) -> object:
            rows.append(len(wanted))
            return forward(cache, chunks, wanted)  # type: ignore[arg-type]

        model.decoder.forward = counted  # type: ignore[method-assign,assignment]
        with_table = Conversation(model).reply(prompt, params)
        drafted_at = next(step for step, count in enumerate(rows) if count > 1)
        rows.clear()
        model.draft_table = None
        without = Conversation(model).reply(prompt, params)
    assert table
    assert with_table.ids == without.ids
    assert all(count == 1 for count in rows[: drafted_at + 1])


def test_a_damaged_table_is_refused(drafted: Path) -> None:
    path = drafted / DRAFT_NAME
    raw = path.read_bytes()
    path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    try:
        with pytest.raises(BundleError, match="differs from the file that was exported"):
            Model.load(drafted)
    finally:
        path.write_bytes(raw)


@pytest.mark.parametrize(
    "options", [{"precision": "float32"}, {"via": "optimum"}, {"budget": 10**9}, {"max_kl": 0.1}]
)
def test_bundles_that_do_not_draft_get_no_table(options: dict[str, object]) -> None:
    with pytest.raises(ParameterError, match="Draft tokens are for int8 and int4"):
        ExportOptions(draft=True, **options)  # type: ignore[arg-type]


def test_messages_are_sentences_of_any_language() -> None:
    text = "山は何ですか？はい。\n数は3.5、それから4．次の長い文です．  A hill. It is 3.5 km high."
    assert sorted(draft.draft_messages(text)) == [
        "It is 3.5 km high.",
        "数は3.5、それから4．",
        "次の長い文です．",
    ]
    assert draft.draft_messages("あ" * 5000) == ["あ" * 60]
    assert len(draft.draft_messages("The quick brown fox jumps over the dog. " * 7)) == 7


def test_a_text_without_sentences_is_refused_before_any_work(tmp_path: Path, shared: Path) -> None:
    (tmp_path / "text.txt").write_text("。" * 3000 + "\n" + "！？" * 1000, encoding="utf-8")
    options = ExportOptions(draft=True, calibrate=tmp_path / "text.txt")
    stages: list[str] = []
    with pytest.raises(ParameterError, match="has no sentence of 8 characters or more"):
        export(
            shared / "checkpoints" / "ja-small",
            tmp_path / "bundle",
            options,
            progress=lambda stage, done, total: stages.append(stage),
        )
    assert not stages


def test_it_writes_no_more_than_asked_and_from_what_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Answering()
    monkeypatch.setattr(draft.Model, "load", lambda *_, **__: model)
    monkeypatch.setattr(draft, "_TOKENS", 300)
    messages = ["あ" * n for n in (8, 20, 39, 40, 60)] * 200
    draft.write_drafts(tmp_path, messages, lambda stage, done, total: None)
    assert {len(prompt) for prompt in model.answered} == {9, 21}
    assert 300 <= 3 * len(model.answered) < 300 + 3 * 16
    with pytest.raises(ParameterError, match="fits into the context of 40 tokens"):
        draft.write_drafts(tmp_path, ["あ" * 40], lambda stage, done, total: None)


@posix
def test_no_more_of_a_file_is_read_than_a_table_may_have(tmp_path: Path) -> None:
    path = tmp_path / DRAFT_NAME
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BundleError, match="is damaged: export the bundle again"):
        read_draft_table(path, 100)
