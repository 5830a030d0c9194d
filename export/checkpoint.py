"""A GPT-2 checkpoint, validated whole before any work: config, weights and tokenizer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from issun.export.added import read_table
from issun.export.config import GPT2Config, read_config
from issun.export.errors import CheckpointError
from issun.export.weights import Tensor, open_weights
from issun.runtime.manifest import AddedToken
from issun.runtime.tokenizer import Tokenizer, load_sentencepiece

TOKENIZER_FILES = ("spiece.model", "sentencepiece.model", "tokenizer.model")
_FLOATS = {"F32", "F16", "BF16", "float32", "float16", "bfloat16"}
# Buffers of old checkpoints that hold the causal mask, not weights.
_MASKS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")
_MAX_LISTED = 12


@dataclass(frozen=True, slots=True)
class TokenizerSource:
    """The SentencePiece file, and what the checkpoint says of special tokens."""

    path: Path
    special: dict[str, int]
    added: dict[str, AddedToken]
    roles: dict[str, str]
    pieces: int
    do_lower_case: bool

    def open(self) -> Tokenizer:
        """The tokenizer as the bundle will have it."""
        return Tokenizer(
            self.path, self.special, added=self.added, do_lower_case=self.do_lower_case
        )

    @property
    def spellings(self) -> set[str]:
        """All special and added tokens."""
        return {*self.special, *self.added}

    def id_of(self, role: str) -> int | None:
        """The id of the token with the role `bos`, `eos`, `unk`, `pad` or `sep`, if any."""
        token = self.roles.get(role)
        return None if token is None else self.special[token]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All that an export reads; tensor names are those of GPT2LMHeadModel less `transformer.`."""

    folder: Path
    config: GPT2Config
    tensors: dict[str, Tensor]
    files: tuple[Path, ...]
    tokenizer: TokenizerSource


def open_checkpoint(folder: Path) -> Checkpoint:
    """Open and validate the checkpoint in `folder`; no weight is read yet.

    Raises CheckpointError that lists every missing, unknown or odd-shaped tensor at once.
    """
    if not folder.is_dir():
        raise CheckpointError("There is no folder {folder}.", folder=folder)
    config = read_config(folder)
    tokenizer = read_tokenizer(folder, config.vocab_size)
    stored, files = open_weights(folder)
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in stored.items()}
    tensors = {name: t for name, t in tensors.items() if not _MASKS.fullmatch(name)}
    if config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)  # transformers overwrites it with wte, too
    _validate(tensors, expected_shapes(config), folder)
    return Checkpoint(folder, config, tensors, (*files, tokenizer.path), tokenizer)


def expected_shapes(config: GPT2Config) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight; Conv1D weights are stored (in, out)."""
    width, inner = config.n_embd, config.n_inner
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (config.vocab_size, width),
        "wpe.weight": (config.n_positions, width),
    }
    block = {
        "ln_1.weight": (width,),
        "ln_1.bias": (width,),
        "attn.c_attn.weight": (width, 3 * width),
        "attn.c_attn.bias": (3 * width,),
        "attn.c_proj.weight": (width, width),
        "attn.c_proj.bias": (width,),
        "ln_2.weight": (width,),
        "ln_2.bias": (width,),
        "mlp.c_fc.weight": (width, inner),
        "mlp.c_fc.bias": (inner,),
        "mlp.c_proj.weight": (inner, width),
        "mlp.c_proj.bias": (width,),
    }
    for layer in range(config.n_layer):
        shapes |= {f"h.{layer}.{name}": shape for name, shape in block.items()}
    shapes |= {"ln_f.weight": (width,), "ln_f.bias": (width,)}
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, width)
    return shapes


def _validate(
    tensors: dict[str, Tensor], expected: dict[str, tuple[int, ...]], folder: Path
) -> None:
    faults = [f"{name} is missing" for name in expected if name not in tensors]
    for name, tensor in tensors.items():
        if name not in expected:
            faults.append(f"{name} is unknown")
        elif tensor.shape != expected[name]:
            faults.append(f"{name} has shape {list(tensor.shape)}, not {list(expected[name])}")
        elif tensor.dtype not in _FLOATS:
            faults.append(f"{name} has type {tensor.dtype}, not float32, float16 or bfloat16")
    if faults:
        more = f"; and {len(faults) - _MAX_LISTED} more" if len(faults) > _MAX_LISTED else ""
        raise CheckpointError(
            "{folder} does not hold the weights that its config.json describes: {faults}{more}.",
            folder=folder,
            faults="; ".join(faults[:_MAX_LISTED]),
            more=more,
        )


def read_tokenizer(folder: Path, vocab_size: int) -> TokenizerSource:
    """Find the SentencePiece file and the tokens beside it of the checkpoint in `folder`.

    Raises CheckpointError when there is no file, or a token is beyond the vocabulary.
    """
    path = next((folder / n for n in TOKENIZER_FILES if (folder / n).is_file()), None)
    if path is None:
        raise CheckpointError(
            "{folder} has no SentencePiece tokenizer: expected {names}.",
            folder=folder,
            names=" or ".join(TOKENIZER_FILES),
        )
    file = load_sentencepiece(path)
    pieces: int = file.get_piece_size()
    table = read_table(folder, [file.id_to_piece(i) for i in range(pieces)], vocab_size)
    ids = table.special | {token: added.id for token, added in table.added.items()}
    beyond = {token: i for token, i in ids.items() if i >= vocab_size}
    if pieces > vocab_size or beyond:
        raise CheckpointError(
            "{path} does not fit config.json: it has {pieces} pieces{beyond}; vocab_size is "
            "{rows}.",
            path=path,
            pieces=pieces,
            beyond="".join(f", {token} has the id {i}" for token, i in beyond.items()),
            rows=vocab_size,
        )
    return TokenizerSource(
        path, table.special, table.added, table.roles, pieces, table.do_lower_case
    )
