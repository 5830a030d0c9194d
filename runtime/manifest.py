"""`issun.json`, a bundle's manifest: its fields, reading, checking and writing it."""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from issun.runtime.errors import BundleError
from issun.runtime.files import as_utf8, open_regular, reason_of

FORMAT_VERSION = 2
MANIFEST_NAME = "issun.json"
SMOOTHING_NAME = "smoothing.safetensors"  # what converting an adapter for the bundle needs
DRAFT_NAME = "draft.bin"  # optional: see runtime/decoding/draft_table.py
_MAX_MANIFEST_BYTES = 1 << 20
_CHUNK = 1 << 20
ALWAYS_VERIFIED_BYTES = 16 << 20  # bytes: files up to this size are verified at every load

KVCacheType = Literal["float32", "int8"]
KV_CACHE_TYPES: tuple[KVCacheType, ...] = ("float32", "int8")

# Limits that keep a damaged manifest from demanding absurd amounts of memory.
Count = Annotated[int, msgspec.Meta(ge=1, le=10**7)]
Id = Annotated[int, msgspec.Meta(ge=0, lt=10**7)]


class Architecture(msgspec.Struct, frozen=True, kw_only=True):
    """The network's sizes, named as in GPT-2's config.json.

    `n_kv_head` is the number of heads that have keys and values of their own, `kv_head_dim` the
    padded head width.
    """

    family: str
    n_layer: Count
    n_embd: Count
    n_head: Count
    n_kv_head: Count
    n_inner: Count
    n_positions: Count
    vocab_size: Count
    kv_head_dim: Count
    activation_function: str
    layer_norm_epsilon: float
    tie_word_embeddings: bool


class Precision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The precision of each part; `name` is the value of `--precision`.

    `calibration` describes the text that it and the scales of an int8 KV cache were calibrated on.
    `by_linear` has the precision of each linear if they differ.
    """

    name: str
    linears: str
    embedding: str
    head: str
    calibration: str = ""
    by_linear: dict[str, str] = {}


class AddedToken(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A token that is split off before the vocabulary sees the text, as in transformers.

    A `special` token has no text. `lstrip` and `rstrip` remove white space next to it. With
    `single_word` it counts only between spaces. If text is lower-cased, only a `cased` token is
    matched before that.
    """

    id: Id
    special: bool = False
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    cased: bool = True


TokenizerKind = Literal["t5", "llama", "json"]


class Tokens(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Ids with a special meaning, and the tokenizer's settings.

    `kind` names the reference: transformers' slow T5Tokenizer or LlamaTokenizer, or the fast
    tokenizer of a tokenizer.json. `legacy` and `prefix_space` are the slow tokenizers' settings of
    the spaces before a text and after a control token. `special` has every control token. `added`
    has the added tokens that are text, and the control tokens that have a text or flags. `begin`
    precedes raw text. `eos` and each of `ends` end an answer.
    """

    kind: TokenizerKind = "t5"
    legacy: bool = True
    prefix_space: bool = True
    file: str
    pieces: Count
    do_lower_case: bool
    special: dict[str, Id]
    bos: Id | None
    eos: Id | None
    unk: Id | None
    pad: Id | None
    sep: Id | None
    added: dict[str, AddedToken] = {}
    begin: tuple[Id, ...] = ()
    ends: tuple[Id, ...] = ()

    @property
    def end_ids(self) -> frozenset[int]:
        """All ids that end an answer."""
        return frozenset(self.ends if self.eos is None else (self.eos, *self.ends))


class ChatRules(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a role, a history and a message fill the template's placeholders.

    `prompt` is the text with the placeholders `{instruction}`, for role and history, and `{input}`,
    for the message; if it is empty, the template's `with_input` is used. `empty_instruction`
    replaces `{instruction}` if there is neither a role nor a history. `system` has the role lines
    for a system text. `reserve` is the number of tokens to keep free for the answer when old turns
    are dropped, and `dropped` a further role line that the prompt then has, so that the model can
    know.
    """

    role_line: str
    history_separator: str
    user: str
    assistant: str
    empty_instruction: str
    system: tuple[str, ...]
    reserve: int
    prompt: str = ""
    dropped: str = ""


class Template(msgspec.Struct, frozen=True, kw_only=True, tag="slots", tag_field="kind"):
    """The prompt format: texts with placeholders and special tokens, and the newline's spelling.

    With an empty `newline`, texts keep their newlines.
    """

    name: str
    with_input: str
    without_input: str
    newline: str
    chat: ChatRules


class JinjaTemplate(msgspec.Struct, frozen=True, kw_only=True, tag="jinja", tag_field="kind"):
    """A chat template in Jinja, which renders a list of messages, as transformers does.

    `variables` are what it can read beside the messages, such as `bos_token`. `takes_system` is
    false if it refuses or ignores a system message. `newline` is its spelling of a newline, which
    answers have too; empty if it keeps newlines. `reserve` is as in `ChatRules`.
    """

    name: str
    source: str
    variables: dict[str, str | bool]
    takes_system: bool
    newline: str
    reserve: int


AnyTemplate = Template | JinjaTemplate


class FileInfo(msgspec.Struct, frozen=True):
    """Size in bytes and SHA-256 of one file of the bundle."""

    size: int
    sha256: str


class MergedAdapter(msgspec.Struct, frozen=True):
    """An adapter that is merged into the bundle's weights, with the weight of its updates."""

    name: str
    weight: float
    sha256: str


class Source(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The checkpoint of the bundle, and `tokenizer` if that comes from another one."""

    name: str
    revision: str | None
    files: dict[str, str]
    sha256: str
    tokenizer: str = ""
    adapters: tuple[MergedAdapter, ...] = ()


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `issun.json`."""

    format: Count
    exporter: str
    graph: Literal["issun", "optimum"]
    architecture: Architecture
    precision: Precision
    kv_cache: KVCacheType
    graphs: dict[KVCacheType, str]
    tokens: Tokens
    prompt: AnyTemplate
    sampling: dict[str, Any]
    source: Source
    files: dict[str, FileInfo]
    fidelity: dict[str, Any] = {}

    @property
    def size(self) -> int:
        """Total bytes of all files."""
        return sum(info.size for info in self.files.values())

    @property
    def bundle_id(self) -> str:
        """A hash of everything that affects results: the files and all fields but a few."""
        described = _as_stored(self)
        for key in ("fidelity", "exporter", "source"):
            described.pop(key)
        text = msgspec.json.encode(described, order="deterministic")
        return hashlib.sha256(text).hexdigest()[:32]


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest in `folder` and check it and the sizes of the files.

    Raises BundleError if there is no bundle, if it is damaged or newer than this issun, or if it
    names a file outside the folder.
    """
    path = folder / MANIFEST_NAME
    try:
        with open_regular(path) as file:
            raw = file.read(_MAX_MANIFEST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        if not folder.exists():
            raise BundleError("There is no folder {folder}.", folder=folder) from None
        raise BundleError(
            "{folder} is not a bundle: it has no {name}. "
            "`issun export` makes a bundle from a checkpoint.",
            folder=folder,
            name=MANIFEST_NAME,
        ) from None
    except OSError as error:
        raise BundleError(
            "{path} cannot be read: {reason}", path=path, reason=reason_of(error)
        ) from error
    if len(raw) > _MAX_MANIFEST_BYTES:
        raise BundleError("{path} is larger than a manifest can be.", path=path)
    manifest = _parse(raw, path)
    _check_files(folder, manifest)
    return manifest


def _parse(raw: bytes, path: Path) -> Manifest:
    try:
        raw = as_utf8(raw)
        version = msgspec.json.decode(raw, type=_FormatOnly).format
        if version > FORMAT_VERSION:
            raise BundleError(
                "{path} has format {found}, but this version of issun reads formats up to "
                "{known}: update issun.",
                path=path,
                found=version,
                known=FORMAT_VERSION,
            )
        if version == 1:
            return _upgrade(msgspec.json.decode(raw))
        return msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(
            "{path} is damaged ({reason}): export the bundle again.", path=path, reason=error
        ) from error


def _upgrade(described: Any) -> Manifest:
    """Add what format 1 did not state; msgspec.ValidationError for anything but a manifest.

    The `format` stays 1, and `_as_stored` takes the same fields away again, so that the bundle
    keeps its id: saved conversations and prompt caches depend on it.
    """
    found = msgspec.convert(described, type=dict[str, Any])
    architecture = msgspec.convert(found.get("architecture"), type=dict[str, Any])
    prompt = msgspec.convert(found.get("prompt"), type=dict[str, Any])
    heads = architecture.get("n_head")
    found["architecture"] = architecture | {"family": "gpt2", "n_kv_head": heads}
    found["prompt"] = prompt | {"kind": "slots"}
    return msgspec.convert(found, type=Manifest)


def _as_stored(manifest: Manifest) -> dict[str, Any]:
    """The manifest's fields in its own format."""
    described: dict[str, Any] = msgspec.to_builtins(manifest)
    if manifest.format == 1:
        for key, added in _ADDED.items():
            for name in added:
                del described[key][name]
    return described


# The fields that format 2 has in addition to format 1.
_ADDED = {"architecture": ("family", "n_kv_head"), "prompt": ("kind",)}


class _FormatOnly(msgspec.Struct):
    format: Count


def _check_files(folder: Path, manifest: Manifest) -> None:
    named = {*manifest.files, *manifest.graphs.values(), manifest.tokens.file}
    for name in sorted(named):
        if Path(name).name != name or name in ("", ".", "..") or "\\" in name:
            raise BundleError(
                "{folder}: the manifest names {name!r}, which is not a file in the bundle.",
                folder=folder,
                name=name,
            )
        if name not in manifest.files:
            raise BundleError(
                "{folder}: the manifest does not list {name}.", folder=folder, name=name
            )
    if manifest.kv_cache not in manifest.graphs:
        raise BundleError(
            "{folder}: the manifest has no graph for its KV cache type {kind}.",
            folder=folder,
            kind=manifest.kv_cache,
        )
    for name, info in manifest.files.items():
        path = folder / name
        if not path.is_file() or path.is_symlink():
            raise BundleError(
                "{path} is missing or a symbolic link: export the bundle again, or copy it "
                "completely.",
                path=path,
            )
        if (size := path.stat().st_size) != info.size:
            raise BundleError(
                "{path} has {found:,} bytes instead of {expected:,}: the file is damaged or was "
                "not copied completely.",
                path=path,
                found=size,
                expected=info.size,
            )


def verify_hashes(folder: Path, manifest: Manifest, *, largest: float = math.inf) -> None:
    """Compare every file of at most `largest` bytes with its hash.

    Raises BundleError for the first one that differs.
    """
    for name, info in manifest.files.items():
        if info.size <= largest:
            verify_hash(folder / name, info, sha256_of(folder / name))


def verify_hash(path: Path, info: FileInfo, found: str) -> None:
    """Raise BundleError unless the hash that was found is the file's."""
    if found != info.sha256:
        raise BundleError(
            "{path} differs from the file that was exported: export or copy the bundle again.",
            path=path,
        )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def combined_sha256(hashes: Mapping[str, str]) -> str:
    """Return one hash for several named files."""
    lines = "".join(f"{value}  {name}\n" for name, value in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `issun.json` atomically: readers see the complete old or new one."""
    text = msgspec.json.format(msgspec.json.encode(_as_stored(manifest)), indent=2) + b"\n"
    handle, name = tempfile.mkstemp(dir=folder, prefix=f".{MANIFEST_NAME}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(folder / MANIFEST_NAME)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
