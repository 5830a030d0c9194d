"""Families, byte-level tokenizers and chat templates in Chromium beside Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from issun.export import ExportOptions, export
from issun.runtime import Model
from issun.runtime.text.turn import Turn
from issun.web import write_site
from tests.families.conftest import KINDS
from tests.web.conftest import hosting

FAMILIES = ["qwen3", "qwen2", "gpt-neox", "gpt2", "llama", "mistral"]
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


def messages() -> list[dict[str, str]]:
    said = [text for turn in CONVERSATION for text in (turn.message, turn.reply)]
    spoken = [
        {"role": "assistant" if place % 2 else "user", "content": text}
        for place, text in enumerate([*said, MESSAGE])
    ]
    return [{"role": "system", "content": SYSTEM}, *spoken]


def check(bundle: Path, site: Path, browser: Any) -> None:
    """Ids of the prompt are Python's, and so are logits of it and after it, up to rounding."""
    with Model.load(bundle, threads=1) as model:
        role = model.prompts.system_lines(SYSTEM)
        ids = model.prompts.chat(role, CONVERSATION, MESSAGE, max_new_tokens=50).ids
        cache = model.new_cache()
        steps = [10 + 97 * i % 300 for i in range(STEPS)]
        expected = [model.decoder.prefill(cache, ids).copy()]
        expected += [model.decoder.step(cache, step).copy() for step in steps]
    with hosting(site) as address, browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{address}NOTICE.txt")
        found = page.evaluate(LOGITS, {"messages": messages(), "steps": steps})
    assert found["ids"] == ids
    rows = np.array(found["rows"], np.float32)
    error = np.linalg.norm(rows - expected, axis=1) / np.linalg.norm(expected, axis=1)
    print(site.name, len(ids), error.max())
    assert error.max() <= 0.05


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == QUICK else pytest.mark.slow) for name in FAMILIES],
)
def test_a_small_random_model(browser: Any, runtime: Path, tmp_path: Path, name: str) -> None:
    source = KINDS[name].write(tmp_path / name)
    export(source, tmp_path / "bundle", ExportOptions(precision="int8", kv_cache="int8"))
    write_site(tmp_path / "bundle", tmp_path / "site", runtime=runtime)
    check(tmp_path / "bundle", tmp_path / "site", browser)
    notice = (tmp_path / "site" / "NOTICE.txt").read_text(encoding="utf-8")
    needs_jinja = KINDS[name].template is not None
    assert (tmp_path / "site" / "jinja" / "index.js").exists() == needs_jinja
    assert ("@huggingface/jinja 0.5.11, MIT" in notice) == needs_jinja
