"""Records the results of transformers, for tests that run without it: `python -m tests.record`.

Needs torch and transformers, and the test data (ISSUN_TEST_DATA, by default ../shared).
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from issun.benchmarks.small_tokenizers import train_tokenizer
from tests import recordings as rec
from tests import reference as ref
from tests.added import SPELLINGS, added_strings, write_spelling
from tests.checkpoints import SHAPES, write_checkpoint
from tests.strings import generate_strings

ROLES = ("bos", "eos", "unk", "sep", "pad")


def record_model(path: Path, model: Any, prompts: Sequence[Sequence[int]]) -> None:
    """Write logits of every position of `prompts`, and the greedy tokens after the last one."""
    logits = np.concatenate([ref.logits_of(model, ids) for ids in prompts])
    tokens, gaps = ref.greedy(model, prompts[-1], rec.NUM_GREEDY)
    np.savez_compressed(
        path,
        lengths=[len(ids) for ids in prompts],
        ids=np.concatenate([np.array(ids) for ids in prompts]),
        logits=logits[:, rec.make_columns(logits.shape[1])],
        log_sum_exp=rec.log_sum_exp(logits),
        argmax=logits.argmax(axis=-1),
        greedy=tokens,
        gaps=np.float32(gaps),
    )


def record_tokenizer(file: Path, texts: Path) -> dict[str, Any]:
    """Digests of the ids of every text and of the generated strings, by `do_lower_case`."""
    digests = {}
    for lower in (False, True):
        tokenizer = ref.make_tokenizer(file, do_lower_case=lower)

        def ids_of(strings: Sequence[str], tokenizer: Any = tokenizer) -> list[list[int]]:
            return [ref.encode(tokenizer, text) for text in strings]

        strings = ids_of(generate_strings())
        digests["lower" if lower else "plain"] = {
            "texts": {name: rec.digest(ids_of(rec.lines_of(texts / name))) for name in rec.TEXTS},
            "strings": [
                rec.digest(strings[i : i + rec.BLOCK]) for i in range(0, len(strings), rec.BLOCK)
            ],
        }
    return digests


def record_added(folder: Path, spiece: Path, name: str) -> dict[str, Any]:
    """Ids of strings with added tokens in them, spelled as `name`, and those of the roles."""
    tokenizer = ref.load_tokenizer(write_spelling(folder, spiece, name))
    texts = [text.replace("\ud800", "\ufffd") for text in added_strings(rec.ADDED)]
    ids = [ref.encode(tokenizer, text) for text in texts]
    return {
        "roles": {role: getattr(tokenizer, f"{role}_token_id") for role in ROLES},
        "first": ids[:5],
        "digest": rec.digest(ids),
    }


def main() -> None:
    """Write all recordings again."""
    shared = Path(os.environ.get("ISSUN_TEST_DATA", "../shared"))
    rec.RECORDED.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        spiece = Path(work) / "spiece.model"
        train_tokenizer(spiece, pieces=400)
        for name, shape in SHAPES.items():
            folder = write_checkpoint(Path(work) / name, shape, spiece)
            prompts = rec.make_prompts(shape.vocab_size)
            record_model(rec.RECORDED / f"{name}.npz", ref.load_model(folder), prompts)
        added = {
            name: record_added(Path(work) / f"added {place}", spiece, name)
            for place, name in enumerate(SPELLINGS)
        }
        _write_json("added.json", added)
    folder = shared / "checkpoints" / "ja-small"
    model, tokenizer = ref.load_model(folder), ref.make_tokenizer(folder / "spiece.model")
    text = "".join(rec.lines_of(shared / "data" / "text" / "novel-eval.txt")[:12])
    ids = ref.encode(tokenizer, text)[:200]
    record_model(rec.RECORDED / "ja-small.npz", model, [ids, ids[:30]])
    transcripts = {
        name: ref.chat(model, tokenizer, role, history, rec.QUESTIONS)
        for name, (role, history) in rec.CHATS.items()
    }
    _write_json("transcripts.json", transcripts)
    digests = {
        name: record_tokenizer(shared / file, shared / "data" / "text")
        for name, file in rec.TOKENIZERS.items()
    }
    _write_json("tokenizers.json", digests)


def _write_json(name: str, content: object) -> None:
    text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
    (rec.RECORDED / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
