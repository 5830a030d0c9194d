"""`issun export --draft`: the bundle has a table of draft tokens from its own text."""

from __future__ import annotations

from pathlib import Path

import pytest

from issun.export import ExportOptions, draft, export
from issun.runtime import BundleError, Conversation, Model, ParameterError, SamplingParams
from issun.runtime.manifest import DRAFT_NAME, read_manifest, verify_hashes

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
    assert 0 < manifest.files[DRAFT_NAME].size <= 400 * 12
    verify_hashes(drafted, manifest)


def test_the_table_has_the_likeliest_tokens(drafted: Path) -> None:
    with Model.load(drafted, threads=1) as model:
        prompt = model.prompt("猫について書いてください。")
        answer = model.generate(prompt, SamplingParams(seed=1, logprobs=1, max_new_tokens=30))
        table = model.draft_table
    assert table
    ids = [prompt[-1], *answer.ids]
    likeliest = [next(iter(logprob.top)) for logprob in answer.logprobs[1:]]
    pairs = zip(ids, ids[1:], likeliest, strict=False)
    known = [(table.after_pair(*pair), best) for *pair, best in pairs]
    found = [guess == best for guess, best in known if guess is not None]
    assert len(found) >= 4
    assert sum(found) >= 0.6 * len(found)


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


@pytest.mark.parametrize("options", [{"precision": "float32"}, {"via": "optimum"}])
def test_bundles_that_do_not_draft_get_no_table(options: dict[str, str]) -> None:
    with pytest.raises(ParameterError, match="Draft tokens are for int8 and int4"):
        ExportOptions(draft=True, **options)  # type: ignore[arg-type]
