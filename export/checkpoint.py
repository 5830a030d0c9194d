"""Opens a GPT-2 checkpoint and validates its config, weights and tokenizer before any work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from issun.export.adapter import refuse_adapter
from issun.export.added import read_table
from issun.export.config import GPT2Config, read_config
from issun.export.errors import CheckpointError
from issun.export.tensors import (
    HEAD,
    drop_tied_head,
    find_network,
    report_foreign,
    tie_head,
)
from issun.export.tokenizer_files import sentencepiece_file
from issun.export.weights import Tensor, open_weights
from issun.runtime.errors import Notify
from issun.runtime.manifest import AddedToken
from issun.runtime.tokenizer import Tokenizer, load_sentencepiece

_FLOATS = {"F32", "F16", "BF16", "float32", "float16", "bfloat16"}
_MAX_LISTED = 12


@dataclass(frozen=True, slots=True)
class TokenizerSource:
    """The SentencePiece file and the checkpoint's special and added tokens."""

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
    """A validated checkpoint; tensors are named as in GPT2LMHeadModel, without `transformer.`."""

    folder: Path
    config: GPT2Config
    tensors: dict[str, Tensor]
    files: tuple[Path, ...]
    tokenizer: TokenizerSource


def open_checkpoint(
    folder: Path,
    *,
    tokenizer: Path | None = None,
    notify: Notify = lambda template, **values: None,
) -> Checkpoint:
    """Open and validate the checkpoint in `folder`, without reading weights (except a tied head).

    `tokenizer` is another folder to take the tokenizer from. `notify` is called about tensors that
    are left out. Raises CheckpointError, which lists every missing, unknown or wrongly shaped
    tensor at once.
    """
    config, source = read_metadata(folder, tokenizer)
    stored, files = open_weights(folder)
    network = find_network(stored, folder)
    tensors, expected = network.tensors, expected_shapes(config)
    tie_head(tensors, config)
    if HEAD in tensors:
        expected |= {HEAD: (config.vocab_size, config.n_embd)}
    _validate(tensors, expected, folder)
    if config.tie_word_embeddings:
        drop_tied_head(tensors, folder, notify)
    report_foreign(network.foreign, folder, notify)
    return Checkpoint(folder, config, tensors, (*files, source.path), source)


def read_metadata(folder: Path, tokenizer: Path | None) -> tuple[GPT2Config, TokenizerSource]:
    """Read and check everything in `folder` but the weights: config and tokenizer.

    Raises CheckpointError, also for an adapter, and BundleError.
    """
    if not folder.is_dir():
        raise CheckpointError("There is no folder {folder}.", folder=folder)
    refuse_adapter(folder, _file_names(folder))
    config = read_config(folder)
    return config, read_tokenizer(tokenizer or folder, config.vocab_size)


def _file_names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.is_file()]


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
            "The weights in {folder} do not match its config.json: {faults}{more}.",
            folder=folder,
            faults="; ".join(faults[:_MAX_LISTED]),
            more=more,
        )


def read_tokenizer(folder: Path, vocab_size: int) -> TokenizerSource:
    """Read the SentencePiece file and the special and added tokens of the checkpoint in `folder`.

    Raises CheckpointError if there is no such file, or an id is outside the vocabulary.
    """
    path = folder / sentencepiece_file(folder, _file_names(folder))
    file = load_sentencepiece(path)
    pieces: int = file.get_piece_size()
    table = read_table(folder, [file.id_to_piece(i) for i in range(pieces)], vocab_size)
    ids = table.special | {token: added.id for token, added in table.added.items()}
    beyond = {token: i for token, i in ids.items() if i >= vocab_size}
    if pieces > vocab_size or beyond:
        raise CheckpointError(
            "{path} does not match config.json: it has {pieces} pieces{beyond}; vocab_size is "
            "{rows}.",
            path=path,
            pieces=pieces,
            beyond="".join(f", {token} has the id {i}" for token, i in beyond.items()),
            rows=vocab_size,
        )
    return TokenizerSource(
        path, table.special, table.added, table.roles, pieces, table.do_lower_case
    )
