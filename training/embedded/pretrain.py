"""Trains the embedded model from scratch on generated records, each seen once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from issun.export.template import ALPACA
from issun.runtime.text.spiece_tokenizer import SentencePieceTokenizer, load_sentencepiece
from issun.training.embedded.corpus import Dialogue, corpus
from issun.training.embedded.questions import QAPair
from issun.training.embedded.styles import POLITE
from issun.training.embedded.vocabulary import SPECIAL
from issun.training.machine import find_machine
from issun.training.records import chat_record, instruction_record

if TYPE_CHECKING:
    import torch
    from transformers import GPT2LMHeadModel

Ids = NDArray[np.int64]
# The large model's format, and a line that tells where old turns were dropped.
TEMPLATE = replace(ALPACA, chat=replace(ALPACA.chat, dropped="…"))


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainOptions:
    """Shape of the model and length of the training."""

    n_layer: int = 7
    n_embd: int = 256
    n_head: int = 8
    n_positions: int = 512
    vocab_size: int = 5120  # rows; the tokenizer has fewer pieces
    steps: int = 5200
    chat_steps: int = 2100  # further steps, mostly on conversations
    batch_tokens: int = 3072  # padding included
    learning_rate: float = 2e-3
    muon: bool = True
    warmup_steps: int = 100
    decay: float = 0.8  # share of the steps in which the learning rate decays
    chat_rate: float = 0.4  # share of the learning rate at the start of the chat steps
    sampled: float = 0.15  # share of records whose prompt uses subword sampling
    seed: int = 1

    @property
    def total_steps(self) -> int:
        """All steps, including the chat steps."""
        return self.steps + self.chat_steps


def record(item: QAPair | Dialogue) -> str:
    """The training record of one item of the corpus."""
    if isinstance(item, QAPair):
        return instruction_record(item.message, item.input, POLITE.render(item.answer))
    role = (*item.role.lines, TEMPLATE.chat.dropped) if item.cut else item.role.lines
    return chat_record(role, item.turns, item.ask.message, item.answer)


class Encoder:
    """Encodes records to token ids and a loss mask of their answers."""

    def __init__(self, path: Path, options: PretrainOptions) -> None:
        from sentencepiece import set_random_generator_seed  # noqa: PLC0415

        set_random_generator_seed(options.seed)
        self._sp = load_sentencepiece(path)
        self._tokenizer = SentencePieceTokenizer(path, SPECIAL)
        self._sampled = options.sampled
        self._rng = Random(options.seed)  # noqa: S311 - reproducible
        (self._assistant,) = self._piece("Assistant:")
        (self._newline,) = self._piece(ALPACA.newline)
        (self._response,) = self._piece(r"\n応答:\n")

    def _piece(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)

    def __call__(self, text: str) -> tuple[Ids, NDArray[np.bool_]]:
        """Token ids and loss mask: True for answers, including those in the history."""
        sampled = self._rng.random() < self._sampled
        ids: list[int] = []
        parts = self._tokenizer.split(text)
        for index, part in enumerate(parts):
            if isinstance(part, int):
                ids.append(part)
            elif sampled and index < len(parts) - 2:
                ids += self._sp.encode(part, enable_sampling=True, nbest_size=-1, alpha=0.3)
            else:
                ids += self._tokenizer.encode(part)
        loss_mask = np.zeros(len(ids), bool)
        answering = final = False
        for position, token in enumerate(ids):
            loss_mask[position] = final or (answering and not sampled)
            if token == self._response:
                final = True
            elif token == self._assistant:
                answering = True
            elif token == self._newline:
                answering = False
        return np.array(ids, np.int64), loss_mask


def batches(
    encode: Encoder, options: PretrainOptions, *, chats: float = 0.5, seed: int | None = None
) -> Iterator[tuple[Ids, NDArray[np.bool_]]]:
    """Generate (batch, sequence) ids and loss masks endlessly, with records sorted by length."""
    seed = options.seed if seed is None else seed
    rng = Random(seed)  # noqa: S311
    records = corpus(seed, chats=chats)
    while True:
        pool = [encode(record(item)) for item in islice(records, 768)]
        pool = sorted(
            (p for p in pool if len(p[0]) <= options.n_positions), key=lambda p: len(p[0])
        )
        groups: list[list[tuple[Ids, NDArray[np.bool_]]]] = [[]]
        for pair in pool:
            if len(pair[0]) * (len(groups[-1]) + 1) > options.batch_tokens:
                groups.append([])
            groups[-1].append(pair)
        rng.shuffle(groups)
        for rows in groups:
            width = max(len(ids) for ids, _ in rows)
            ids = np.full((len(rows), width), SPECIAL["[PAD]"], np.int64)
            loss_mask = np.zeros(ids.shape, bool)
            for row, (row_ids, mask) in enumerate(rows):
                ids[row, : len(row_ids)], loss_mask[row, : len(row_ids)] = row_ids, mask
            yield ids, loss_mask


def pretrain(
    vocabulary: Path,
    options: PretrainOptions,
    state: Path,
    report: Callable[[int, float], object],
) -> GPT2LMHeadModel:
    """Train a model for all steps; `report` is called with a step and the mean loss since the last.

    The training state is saved to the file `state` every 100 steps, and training resumes from it.
    """
    import torch  # noqa: PLC0415
    from torch.nn.functional import cross_entropy  # noqa: PLC0415

    torch.manual_seed(options.seed)
    machine = find_machine()
    device = torch.device(machine.device)
    mixed = torch.autocast(device.type, torch.bfloat16, enabled=machine.bf16)
    model = _model(options).to(device).train()
    optimizers = _optimizers(model, options)
    parts = [model, *optimizers]
    done, losses = 0, []
    if state.exists():
        done, *saved = torch.load(state, map_location=device, weights_only=True)
        for part, values in zip(parts, saved, strict=True):
            part.load_state_dict(values)
    for step, (ids, loss_mask) in enumerate(_stream(vocabulary, options, done), done + 1):
        rate = options.learning_rate * rate_share(step, options)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        rows = torch.from_numpy(ids).to(device)
        target = torch.from_numpy(loss_mask[:, 1:]).to(device)
        with mixed:
            # Rows are padded on the right, so causal attention needs no mask for the padding.
            hidden = model.transformer(input_ids=rows, use_cache=False).last_hidden_state
            logits = model.lm_head(hidden[:, :-1][target])
        loss = cross_entropy(logits.float(), rows[:, 1:][target])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            with mixed:
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if step % 100 == 0 or step in (options.steps, options.total_steps):
            report(step, fmean(losses))
            losses.clear()
            partial = state.with_suffix(".new")
            torch.save([step, *(part.state_dict() for part in parts)], partial)
            partial.replace(state)
    return model.cpu().eval()


def _stream(
    vocabulary: Path, options: PretrainOptions, done: int
) -> Iterator[tuple[Ids, NDArray[np.bool_]]]:
    """The batches of all steps after the first `done`, the same as in an uninterrupted run."""
    if done < options.steps:
        yield from islice(batches(Encoder(vocabulary, options), options), done, options.steps)
    chats = batches(Encoder(vocabulary, options), options, chats=0.75, seed=options.seed + 1)
    yield from islice(chats, max(0, done - options.steps), options.chat_steps)


def rate_share(step: int, options: PretrainOptions) -> float:
    """The learning rate relative to its peak: linear warmup, constant, then linear decay to 0.

    In the chat steps it decays linearly again, from `chat_rate`.
    """
    if step > options.steps:
        remaining = options.total_steps - step
        return options.chat_rate * remaining / options.chat_steps + 1e-3
    decayed = (options.steps - step) / (options.steps * options.decay)
    return min(1.0, step / options.warmup_steps, decayed + 1e-3)


def _float32_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *_: object,
    **__: object,
) -> tuple[torch.Tensor, None]:
    """Causal attention in float32, whose backward pass on CPUs is twice as fast as in bfloat16."""
    import torch  # noqa: PLC0415

    with torch.autocast(query.device.type, enabled=False):
        mixed = torch.nn.functional.scaled_dot_product_attention(
            query.float(), key.float(), value.float(), is_causal=True
        )
    return mixed.transpose(1, 2), None


def _model(options: PretrainOptions) -> GPT2LMHeadModel:
    import torch  # noqa: PLC0415
    from transformers import AttentionInterface, GPT2Config, GPT2LMHeadModel  # noqa: PLC0415

    AttentionInterface.register("float32", _float32_attention)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=options.vocab_size,
            n_positions=options.n_positions,
            n_embd=options.n_embd,
            n_layer=options.n_layer,
            n_head=options.n_head,
            activation_function="gelu_pytorch_tanh",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            attn_implementation="float32",
            bos_token_id=2,
            eos_token_id=3,
        )
    )
    with torch.no_grad():
        # Five times the scale of transformers: embeddings of rare characters must stay distinct.
        model.transformer.wte.weight.mul_(5)
        model.transformer.wpe.weight.copy_(torch.from_numpy(sinusoidal_positions(options)))
    return model


def sinusoidal_positions(options: PretrainOptions) -> NDArray[np.float32]:
    """Initial position embeddings, (n_positions, n_embd): sines and cosines.

    With these, "the previous token" is the same rotation at every position, so that the model
    learns to copy from a text sooner than from random embeddings. Source: Vaswani et al.,
    "Attention is all you need" (2017).
    """
    frequencies = 10_000.0 ** -np.linspace(0, 1, options.n_embd // 2, endpoint=False)
    angles = np.arange(options.n_positions)[:, None] * frequencies
    both = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    return (0.03 * both).astype(np.float32)


def _optimizers(model: GPT2LMHeadModel, options: PretrainOptions) -> list[torch.optim.Optimizer]:
    """Muon (Jordan 2024) for the weight matrices of the blocks, AdamW for the rest."""
    import torch  # noqa: PLC0415

    from issun.training.embedded.muon import Muon  # noqa: PLC0415

    matrices = [p for n, p in model.named_parameters() if ".h." in n and p.ndim == 2]
    if not options.muon:
        matrices = []
    embedding = model.transformer.wte.weight
    others = {id(p) for p in (*matrices, embedding)}
    rest = [p for p in model.parameters() if id(p) not in others]
    common: dict[str, Any] = {"lr": options.learning_rate, "weight_decay": 0.02}
    # Rows of rare tokens receive tiny, almost equal gradients as negatives of the softmax. With the
    # default eps, Adam would scale them up until these rows are equal and cannot be copied.
    groups = [{"params": rest}, {"params": [embedding], "eps": 1e-4}]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, betas=(0.9, 0.98), **common)
    ]
    if matrices:
        optimizers.append(Muon(matrices, **common))
    return optimizers
