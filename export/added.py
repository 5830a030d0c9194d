"""Special and added tokens, with the ids that transformers assigns to them.

Source: `PreTrainedTokenizerBase._from_pretrained`, `T5Tokenizer.__init__`,
`LlamaTokenizer.__init__` and `PreTrainedTokenizer._add_tokens` in transformers 4.57. Ids depend on
the order of their steps, which this module follows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from issun.export.config import read_json
from issun.export.errors import CheckpointError
from issun.runtime.manifest import AddedToken, TokenizerKind

# The order in which transformers assigns ids to special tokens that the file does not contain.
SPECIAL_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_CONFIG, _SPECIAL = "tokenizer_config.json", "special_tokens_map.json"
_ADDED, _FAST = "added_tokens.json", "tokenizer.json"

# The token of a role that no file defines. T5Tokenizer has no bos, but prompts need one.
_DEFAULTS = {
    "t5": {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "pad": "<pad>"},
    "llama": {"bos": "<s>", "eos": "</s>", "unk": "<unk>"},
}
# Added tokens in brackets are markers of a format (<think>, [INST]); others, such as runs of
# spaces, are text.
_MARKER = re.compile(r"<.+>|\[.+\]", re.DOTALL)
_KEYS = {f"{role}_token" for role in SPECIAL_ROLES}
_MORE, _EXTRA = "additional_special_tokens", "extra_special_tokens"
_SENTINEL = "<extra_id_"
# Unsupported fields that change ids, with the values that leave ids unchanged.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "split_special_tokens": (None, False),
    "sp_model_kwargs": (None, {}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """transformers' AddedToken."""

    content: str
    special: bool
    normalized: bool
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


Named = dict[str, Any]  # fields of tokenizer_config.json; tokens in them are str or Token
ById = dict[int, Token]


@dataclass(frozen=True, slots=True)
class TokenTable:
    """Token by role, ids of control tokens, and added tokens that are text or have flags.

    `settings` has the fields of tokenizer_config.json.
    """

    roles: dict[str, str]
    special: dict[str, int]
    added: dict[str, AddedToken]
    settings: Mapping[str, Any]


def read_table(
    folder: Path, pieces: Sequence[str], rows: int, kind: TokenizerKind = "t5"
) -> TokenTable:
    """Read the token tables in `folder`, given the SentencePiece `pieces` and the vocabulary size.

    `rows` is the number of rows of the embedding. Default tokens and sentinels without a row are
    left out. Raises CheckpointError for invalid tables, and for fields that would give other ids
    than the slow tokenizer of that kind.
    """
    named, tokens = read_files(folder)
    sentinels = _add_sentinels(named, len(pieces), folder) if kind == "t5" else {}
    named[_MORE] = named.get(_MORE) or []
    tokens = sentinels | tokens
    roles = {role: _role_token(named, role, pieces, kind) for role in SPECIAL_ROLES}
    listed = [token for token in (*roles.values(), *named[_MORE], *named[_EXTRA]) if token]
    _add_listed(tokens, listed, pieces, folder)
    by_role = {role: _text(token) for role, token in roles.items() if token}
    unnamed = {token for role, token in by_role.items() if f"{role}_token" not in named}
    kept = {
        i: token
        for i, token in tokens.items()
        if i < rows or not (token.content in unnamed or token.content.startswith(_SENTINEL))
    }
    ids = {token.content: i for i, token in kept.items()}
    lower = kind == "t5" and bool(named.get("do_lower_case", False))
    special, added = _divide(kept, list(map(_text, listed)), lower=lower, markers=kind != "t5")
    roles_kept = {role: token for role, token in by_role.items() if token in ids}
    return TokenTable(roles_kept, special, added, named)


def read_files(folder: Path) -> tuple[Named, ById]:
    """The merged fields of the files, and the tokens to which the files assign an id.

    If tokenizer_config.json has `added_tokens_decoder`, the other files are not read.
    """
    path = folder / _CONFIG
    named: Named = _read(path)
    for key in _KEYS & named.keys():
        named[key] = _read_token(named[key], path)
    extra = named.get(_EXTRA) or {}
    named[_EXTRA] = _read_list([*extra.values()] if isinstance(extra, dict) else extra, path)
    if named.get(_MORE) is not None:
        named[_MORE] = _read_list(named[_MORE], path)
    for key, supported in _UNSUPPORTED.items():
        if named.get(key) not in supported:
            raise CheckpointError(
                "{path}: {key} is {value!r}, which changes token ids; issun supports only "
                "{known!r}.",
                path=path,
                key=key,
                value=named[key],
                known=supported[-1],
            )
    if "added_tokens_decoder" in named:
        table = _table(named["added_tokens_decoder"], path)
        tokens = {_id(i, path): _token(token, path) for i, token in table.items()}
        return _with_objects(named, tokens), tokens
    _add_special_map(named, folder / _SPECIAL)
    tokens, path = {}, folder / _ADDED
    names = {_text(token) for token in _special_tokens(named)}
    for content, i in _read(path).items():
        special = content in names
        tokens[_id(i, path)] = Token(content=content, special=special, normalized=not special)
    path = folder / _FAST
    listed = _list(_read(path).get("added_tokens") or [], path)
    fast = {_id(_table(token, path).get("id"), path): _token(token, path) for token in listed}
    return _with_objects(named, fast), tokens | fast


def _add_special_map(named: Named, path: Path) -> None:
    """Merge special_tokens_map.json, which takes precedence over tokenizer_config.json."""
    for key, value in _read(path).items():
        if key in _KEYS:
            named[key] = _read_token(value, path)
        elif key == _MORE and value is not None:
            more = list(named.get(_MORE) or [])
            texts = set(map(_text, more))
            found = _read_list(value, path)
            named[_MORE] = more + [token for token in found if _text(token) not in texts]


def _with_objects(named: Named, tokens: ById) -> Named:
    """Give each role's token the flags that it has in `tokens`."""
    found = {token.content: token for token in tokens.values()}
    for role in SPECIAL_ROLES:
        if token := named.get(f"{role}_token"):
            named[f"{role}_token"] = found.get(_text(token), token)
    return named


def _special_tokens(named: Named) -> list[str | Token]:
    roles = [named.get(key) for key in _KEYS]
    return [token for token in (*roles, *(named.get(_MORE) or [])) if token]


def _add_sentinels(named: Named, pieces: int, folder: Path) -> ById:
    """Assign ids to T5's sentinel tokens, and add them to `additional_special_tokens`."""
    count = named.get("extra_ids", 0)
    if not isinstance(count, int) or count < 0:
        raise CheckpointError(
            "{path}: {key} is {value!r}, it must be an integer of at least {low}.",
            path=folder / _CONFIG,
            low=0,
            key="extra_ids",
            value=count,
        )
    names = [f"{_SENTINEL}{i}>" for i in range(count)]
    if named.get(_MORE) is None:
        named[_MORE] = given = names
    else:
        given = [token for token in named[_MORE] if _SENTINEL in _text(token)]
        if not given:
            named[_MORE] = [*named[_MORE], *names]
        elif count and count != len(given):
            raise CheckpointError(
                "{path}: extra_ids is {count}, but {found} such tokens are listed.",
                path=folder / _CONFIG,
                count=count,
                found=len(given),
            )
    return {
        pieces - 1 + count - i: Token(
            content=f"{_SENTINEL}{i}>", special=True, normalized=False, lstrip=True, rstrip=True
        )
        for i in range(len(given))
    }


def _role_token(
    named: Named, role: str, pieces: Sequence[str], kind: TokenizerKind
) -> str | Token | None:
    """The token of `role`, with its flags if it has any."""
    key = f"{role}_token"
    token: str | Token | None = named.get(key, _DEFAULTS[kind].get(role))
    if role == "bos" and key not in named and token not in pieces:
        return None
    wrapped = ("eos", "unk", "pad") if kind == "t5" else ("bos", "eos", "unk", "pad")
    if isinstance(token, str) and token and role in wrapped:  # as the class does
        return Token(content=token, special=True, normalized=False)
    return token or None


def _add_listed(
    tokens: ById, listed: Sequence[str | Token], pieces: Sequence[str], folder: Path
) -> None:
    """Assign ids to special tokens without one: that of the piece, else the next new id.

    As in transformers, the next new id is the number of tokens, not the largest id plus one.
    """
    ids = {tokens[i].content if i in tokens else piece: i for i, piece in enumerate(pieces)}
    added = {token.content: i for i, token in tokens.items()}
    ids |= added
    for token in listed:
        content = _text(token)
        if isinstance(token, str):
            if token in added:
                continue
            token = Token(content=token, special=True, normalized=False)  # noqa: PLW2901
        i = added[content] = ids.setdefault(content, len(ids))
        if i in tokens and tokens[i].content != content:
            raise CheckpointError(
                "{folder}: {token} would get id {id}, which belongs to {other}: give it another "
                "id in tokenizer_config.json.",
                folder=folder,
                token=content,
                id=i,
                other=tokens[i].content,
            )
        tokens[i] = replace(token, special=True)


def _divide(
    tokens: ById, listed: Sequence[str], *, lower: bool, markers: bool
) -> tuple[dict[str, int], dict[str, AddedToken]]:
    """Ids of control tokens, and the added tokens that are ordinary text or have flags.

    With `markers`, tokens that look like one are control tokens, even if they are not special.
    """
    order = {content: place for place, content in enumerate(listed)}
    by_place = sorted(
        tokens.items(), key=lambda item: (order.get(item[1].content, len(order)), item)
    )
    special, added = dict[str, int](), dict[str, AddedToken]()
    for i, token in by_place:
        entry = AddedToken(
            id=i,
            special=token.special or token.content in order,
            lstrip=token.lstrip,
            rstrip=token.rstrip,
            single_word=token.single_word,
            cased=not lower or token.content in order or (token.normalized and not token.special),
        )
        if entry.special or (markers and is_marker(token.content)):
            special[token.content] = i
        if entry != AddedToken(id=i, special=True):
            added[token.content] = entry
    return special, added


def is_marker(token: str) -> bool:
    """Whether an added token is a marker of a format, which user text must not become."""
    return _MARKER.fullmatch(token) is not None


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _table(value: object, path: Path) -> Mapping[Any, Any]:
    if isinstance(value, dict):
        return value
    raise CheckpointError("{path}: {value!r:.80} is not a token.", path=path, value=value)


def _read_list(value: object, path: Path) -> list[str | Token]:
    return [token for token in (_read_token(one, path) for one in _list(value, path)) if token]


def _list(value: object, path: Path) -> list[Any]:
    if isinstance(value, list):
        return value
    raise CheckpointError("{path}: {value!r:.80} is not a list of tokens.", path=path, value=value)


def _text(token: str | Token) -> str:
    return token if isinstance(token, str) else token.content


def _read_token(value: object, path: Path) -> str | Token | None:
    """A special token as the files write it: a string, or an object with flags."""
    return value if value is None or isinstance(value, str) else _token(value, path, special=True)


def _token(value: Any, path: Path, *, special: bool = False) -> Token:
    value = _table(value, path)
    flags = {k: bool(value.get(k, False)) for k in ("lstrip", "rstrip", "single_word")}
    special = special or bool(value.get("special", False))
    content = value.get("content")
    if not isinstance(content, str) or not content:
        raise CheckpointError("{path}: {value!r:.80} is not a token.", path=path, value=value)
    normalized = bool(value.get("normalized", not special))
    return Token(content=content, special=special, normalized=normalized, **flags)


def _id(value: Any, path: Path) -> int:
    if isinstance(value, int | str) and str(value).isdecimal():
        return int(value)
    raise CheckpointError("{path}: {value!r:.80} is not a token id.", path=path, value=value)
