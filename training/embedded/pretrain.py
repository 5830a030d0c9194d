"""Trains the embedded model from scratch on the endless corpus: one pass, fresh records only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from issun.export.template import ALPACA
from issun.runtime.tokenizer import Tokenizer, load_sentencepiece
from issun.training.embedded.corpus import Dialogue, corpus
from issun.training.embedded.questions import Ask
from issun.training.embedded.styles import POLITE
from issun.training.embedded.vocabulary import SPECIAL
from issun.training.machine import find_machine
from issun.training.records import chat_record, instruction_record

if TYPE_CHECKING:
    import torch
    from transformers import GPT2LMHeadModel

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainOptions:
    """Shape of the model and length of the training."""

    n_layer: int = 6
    n_embd: int = 256
    n_head: int = 8
    n_positions: int = 512
    vocab_size: int = 4736  # rows; the tokenizer has fewer pieces
    steps: int = 5600
    chat_steps: int = 2150  # steps more, mostly over conversations, which are learnt last
    batch_tokens: int = 3072  # padding counts
    learning_rate: float = 2e-3
    muon: bool = True
    warmup_steps: int = 100
    decay: float = 0.8  # share of the steps in which the rate falls
    chat_rate: float = 0.4  # share of the rate that the chat steps begin with
    sampled: float = 0.15  # share of records whose prompt is cut into pieces at random
    seed: int = 1

    @property
    def total_steps(self) -> int:
        """All steps, the last ones over conversations."""
        return self.steps + self.chat_steps


def record(item: Ask | Dialogue) -> str:
    """The training record of one item of the corpus."""
    if isinstance(item, Ask):
        return instruction_record(item.message, item.input, POLITE.say(item.answer))
    return chat_record(item.role.lines, item.turns, item.ask.message, item.answer)


class Encoder:
    """Records -> ids and which of them are answers, in history and at the end."""

    def __init__(self, path: Path, options: PretrainOptions) -> None:
        from sentencepiece import set_random_generator_seed  # noqa: PLC0415

        set_random_generator_seed(options.seed)
        self._sp = load_sentencepiece(path)
        self._tokenizer = Tokenizer(path, SPECIAL)
        self._sampled = options.sampled
        self._rng = Random(options.seed)  # noqa: S311 - a training that can be made again
        (self._assistant,) = self._piece("Assistant:")
        (self._newline,) = self._piece(ALPACA.newline)
        (self._response,) = self._piece(r"\n応答:\n")

    def _piece(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)

    def __call__(self, text: str) -> tuple[Ids, NDArray[np.bool_]]:
        """Ids, and a mask of those to be learnt: answers alone, not what users say."""
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
        learnt = np.zeros(len(ids), bool)
        answering = final = False
        for position, token in enumerate(ids):
            learnt[position] = final or (answering and not sampled)
            if token == self._response:
                final = True
            elif token == self._assistant:
                answering = True
            elif token == self._newline:
                answering = False
        return np.array(ids, np.int64), learnt


def batches(
    encode: Encoder, options: PretrainOptions, *, chats: float = 0.5, seed: int | None = None
) -> Iterator[tuple[Ids, NDArray[np.bool_]]]:
    """Endless (batch, sequence) ids and masks; records of like length go together."""
    seed = options.seed if seed is None else seed
    rng = Random(seed)  # noqa: S311
    records = corpus(seed, chats=chats)
    while True:
        pool = [encode(record(item)) for item in islice(records, 768)]
        pool = sorted(
            (p for p in pool if len(p[0]) <= options.n_positions), key=lambda p: len(p[0])
        )
        cut: list[list[tuple[Ids, NDArray[np.bool_]]]] = [[]]
        for pair in pool:
            if len(pair[0]) * (len(cut[-1]) + 1) > options.batch_tokens:
                cut.append([])
            cut[-1].append(pair)
        rng.shuffle(cut)
        for rows in cut:
            width = max(len(ids) for ids, _ in rows)
            ids = np.full((len(rows), width), SPECIAL["[PAD]"], np.int64)
            learnt = np.zeros(ids.shape, bool)
            for row, (some, mask) in enumerate(rows):
                ids[row, : len(some)], learnt[row, : len(some)] = some, mask
            yield ids, learnt


def pretrain(
    vocabulary: Path,
    options: PretrainOptions,
    state: Path,
    report: Callable[[int, float], object],
) -> GPT2LMHeadModel:
    """A model trained for all steps; `report` gets a step and the loss since the last.

    Every 100 steps all is written to the file `state`; where it exists, training goes on from it.
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
    for step, (ids, learnt) in enumerate(_stream(vocabulary, options, done), done + 1):
        rate = options.learning_rate * rate_share(step, options)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        rows = torch.from_numpy(ids).to(device)
        target = torch.from_numpy(learnt[:, 1:]).to(device)
        with mixed:
            # Padding stands behind the text: causal attention never looks at it.
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
            beside = state.with_suffix(".new")
            torch.save([step, *(part.state_dict() for part in parts)], beside)
            beside.replace(state)
    return model.cpu().eval()


def _stream(
    vocabulary: Path, options: PretrainOptions, done: int
) -> Iterator[tuple[Ids, NDArray[np.bool_]]]:
    """The batches of all steps behind the first `done`: the same, stopped in between or not."""
    if done < options.steps:
        yield from islice(batches(Encoder(vocabulary, options), options), done, options.steps)
    chats = batches(Encoder(vocabulary, options), options, chats=0.75, seed=options.seed + 1)
    yield from islice(chats, max(0, done - options.steps), options.chat_steps)


def rate_share(step: int, options: PretrainOptions) -> float:
    """The share of the full learning rate: up, level, then down to nothing in a straight line.

    Once more down, from a part of it, in the chat steps.
    """
    if step > options.steps:
        left = options.total_steps - step
        return options.chat_rate * left / options.chat_steps + 1e-3
    falling = (options.steps - step) / (options.steps * options.decay)
    return min(1.0, step / options.warmup_steps, falling + 1e-3)


def _float32_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *_: object,
    **__: object,
) -> tuple[torch.Tensor, None]:
    """Causal attention in float32: torch's backward pass takes twice as long in bfloat16 on CPUs."""
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
        # Five times transformers' own: characters that are hardly ever seen must stay apart.
        model.transformer.wte.weight.mul_(5)
        model.transformer.wpe.weight.copy_(torch.from_numpy(waves(options)))
    return model


def waves(options: PretrainOptions) -> NDArray[np.float32]:
    """Positions to begin with, (n_positions, n_embd): sines and cosines, in the embeddings' size.

    From these "the token before" is one rotation at every position, so that copying out of a text
    is learnt sooner than from random positions. Source: Vaswani et al., "Attention is all you need" (2017).
    """
    frequencies = 10_000.0 ** -np.linspace(0, 1, options.n_embd // 2, endpoint=False)
    angles = np.arange(options.n_positions)[:, None] * frequencies
    both = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    return (0.03 * both).astype(np.float32)


def _optimizers(model: GPT2LMHeadModel, options: PretrainOptions) -> list[torch.optim.Optimizer]:
    """Muon (Jordan 2024) for the matrices of the layers, AdamW for the rest."""
    import torch  # noqa: PLC0415

    from issun.training.embedded.muon import Muon  # noqa: PLC0415

    matrices = [p for n, p in model.named_parameters() if ".h." in n and p.ndim == 2]
    if not options.muon:
        matrices = []
    embedding = model.transformer.wte.weight
    held = {id(p) for p in (*matrices, embedding)}
    rest = [p for p in model.parameters() if id(p) not in held]
    common: dict[str, Any] = {"lr": options.learning_rate, "weight_decay": 0.02}
    # A row whose token is hardly ever seen gets tiny gradients, all alike, from being no answer.
    # Adam would blow them up until such rows are all the same, and none could be copied any more.
    groups = [{"params": rest}, {"params": [embedding], "eps": 1e-4}]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, betas=(0.9, 0.98), **common)
    ]
    if matrices:
        optimizers.append(Muon(matrices, **common))
    return optimizers
