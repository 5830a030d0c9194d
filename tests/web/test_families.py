"""Families, byte-level tokenizers and chat templates in Chromium beside Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from issun.export import ExportOptions, export
from issun.runtime import Model
from issun.runtime.manifest import read_manifest
from issun.runtime.text.turn import Turn
from issun.web import write_site
from tests.families.conftest import KINDS
from tests.web.conftest import hosting
from tests.web.test_greedy import unpacked

FAMILIES = KINDS | {
    # Its own kind has a token that takes white space with it, which a browser refuses.
    "mistral": replace(KINDS["mistral"], tokenizer="llm_jp_first"),
}
QUICK = "qwen3"
SYSTEM = "あなたは案内役です。\n短く答えてください。"
CONVERSATION = [Turn("日本で一番高い山は?", "富士山です。"), Turn("<|im_end|>\n<think>", "😀です")]
MESSAGE = "では、二番目に高い山はどこにありますか?  It's <|im_start|>system"
STEPS = 30

LOGITS = """async ({ messages, steps }) => {
  const site = new URL("./", location.href);
  const { openModel } = await import(new URL("engine/open.mjs", site).href);
  const { model } = await openModel(site, { threads: 1 });
  const { ids } = model.prompt(messages, 50);
  const rows = [await model.decoder.prefill(ids, async () => true)];
  for (const id of steps) rows.push(await model.decoder.step([id]));
  return { ids, rows: rows.map((row) => Array.from(row)) };
}"""


def messages(message: str) -> list[dict[str, str]]:
    said = [text for turn in CONVERSATION for text in (turn.message, turn.reply)]
    spoken = [
        {"role": "assistant" if place % 2 else "user", "content": text}
        for place, text in enumerate([*said, message])
    ]
    return [{"role": "system", "content": SYSTEM}, *spoken]


def check(bundle: Path, site: Path, browser: Any, message: str = MESSAGE) -> None:
    """Ids of the prompt are Python's, and so are logits of it and after it, up to rounding."""
    # Unpacked bundles have operators that issun does not export.
    with Model.load(bundle, threads=1, trust=True) as model:
        role = model.prompts.system_lines(SYSTEM)
        ids = model.prompts.chat(role, CONVERSATION, message, max_new_tokens=50).ids
        cache = model.new_cache()
        steps = [10 + 97 * i % 300 for i in range(STEPS)]
        expected = [model.decoder.prefill(cache, ids).copy()]
        expected += [model.decoder.step(cache, step).copy() for step in steps]
    with hosting(site) as address, browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{address}NOTICE.txt")
        found = page.evaluate(LOGITS, {"messages": messages(message), "steps": steps})
    assert found["ids"] == ids
    rows = np.array(found["rows"], np.float32)
    error = np.linalg.norm(rows - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert error.max() <= 0.02


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == QUICK else pytest.mark.slow) for name in FAMILIES],
)
def test_a_small_random_model(browser: Any, runtime: Path, tmp_path: Path, name: str) -> None:
    source = FAMILIES[name].write(tmp_path / name)
    export(source, tmp_path / "bundle", ExportOptions(precision="int8", kv_cache="int8"))
    write_site(tmp_path / "bundle", tmp_path / "site", runtime=runtime)
    check(tmp_path / "bundle", tmp_path / "site", browser)
    notice = (tmp_path / "site" / "NOTICE.txt").read_text(encoding="utf-8")
    needs_jinja = KINDS[name].template is not None
    assert (tmp_path / "site" / "jinja" / "index.js").exists() == needs_jinja
    assert ("@huggingface/jinja 0.5.11, MIT" in notice) == needs_jinja


@pytest.mark.slow
def test_a_mixture_of_precisions(
    browser: Any, runtime: Path, tmp_path: Path, checkpoint: Callable[[str], Path]
) -> None:
    """Beside Python with the same unpacked weights."""
    source = checkpoint("head-8")
    size = sum(path.stat().st_size for path in source.iterdir())
    export(source, tmp_path / "bundle", ExportOptions(budget=size * 24 // 100, gptq=False))
    kinds = set(read_manifest(tmp_path / "bundle").precision.by_linear.values())
    assert "int8" in kinds
    assert kinds & {"int4", "int4-32", "int8-blocks"}
    assert write_site(tmp_path / "bundle", tmp_path / "site", runtime=runtime).unpacked
    own = unpacked(tmp_path / "bundle", tmp_path / "unpacked")
    check(own, tmp_path / "site", browser, "山は?")
