"""The results of transformers that issun is compared with. Needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, T5Tokenizer

from issun.export.template import ALPACA

Array = NDArray[np.float32]

torch.set_num_threads(1)  # with small models, threads mostly wait for each other

_SPECIAL = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def load_model(folder: Path) -> Any:
    """The checkpoint in `folder`, of any family, in float32.

    Eager attention, since the default one ignores `scale_attn_weights` and
    `scale_attn_by_inverse_layer_idx`.
    """
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, attn_implementation="eager"
    )
    return model.eval()


@torch.no_grad()
def logits_of(model: Any, ids: Sequence[int]) -> Array:
    """Logits of every position from one forward pass: (len(ids), vocab)."""
    logits: Array = model(torch.tensor([list(ids)])).logits[0].numpy()
    return logits


@torch.no_grad()
def greedy(model: Any, ids: Sequence[int], count: int) -> tuple[list[int], list[float]]:
    """Return `count` greedy tokens, and each one's margin over the second most likely token."""
    tokens, gaps = [], []
    feed, past = torch.tensor([list(ids)]), None
    for _ in range(count):
        out = model(feed, past_key_values=past, use_cache=True)
        past = out.past_key_values
        best = out.logits[0, -1].topk(2)
        tokens.append(int(best.indices[0]))
        gaps.append(float(best.values[0] - best.values[1]))
        feed = best.indices[:1][None]
    return tokens, gaps


def make_tokenizer(file: Path, *, do_lower_case: bool = False) -> Any:
    """The tokenizer class of the published models, with any SentencePiece file."""
    tokenizer = T5Tokenizer(str(file), extra_ids=0, **_SPECIAL)
    tokenizer.do_lower_case = do_lower_case  # the constructor ignores it
    return tokenizer


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a checkpoint's folder, with all its added tokens."""
    return T5Tokenizer.from_pretrained(folder, local_files_only=True)


def encode(tokenizer: Any, text: str) -> list[int]:
    """Return the ids of `text`, including special tokens in it and adding none."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


@torch.no_grad()
def chat(
    model: Any,
    tokenizer: Any,
    role: Sequence[str],
    history: Sequence[str],
    questions: Sequence[str],
) -> list[dict[str, Any]]:
    """Greedy answers to `questions` by the published algorithm: for each prompt, ids and text.

    The answer ends before its last literal newline, which every training record has.
    """
    lines, turns = list(history), []
    for question in questions:
        while True:
            instruction = "".join(line + r"\n" for line in role) + r"\n".join(lines)
            text = ALPACA.with_input.format(instruction=instruction, input=f"User:{question}")
            prompt = encode(tokenizer, text)
            if len(prompt) + 100 <= model.config.n_positions:
                break
            lines = lines[2:]
        output = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            max_new_tokens=min(100, model.config.n_positions - len(prompt)),
            bad_words_ids=[[tokenizer.unk_token_id]],
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            return_dict_in_generate=True,
            output_scores=True,
        )
        best = torch.cat(output.scores).topk(2).values
        drawn = output.sequences[0, len(prompt) :].tolist()
        ids = [i for i in drawn if i != tokenizer.eos_token_id]
        decoded = tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        answer = decoded.replace(r"\n", "\n").removesuffix("\n")
        turns.append(
            {
                "question": question,
                "prompt_tokens": len(prompt),
                "ids": ids,
                "text": answer,
                "smallest_gap": round(float((best[:, 0] - best[:, 1]).min()), 6),
            }
        )
        lines += [f"User:{question}", "Assistant:" + answer.replace("\n", r"\n")]
    return turns
