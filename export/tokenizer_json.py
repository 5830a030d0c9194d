"""Reads a checkpoint's tokenizer.json as transformers' fast tokenizer of its class does.

Source: `PreTrainedTokenizerFast.__init__` and `LlamaTokenizerFast.update_post_processor` in
transformers 4.57.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from issun.export.added import SPECIAL_ROLES, Token, is_marker, read_files
from issun.export.errors import CheckpointError
from issun.runtime.manifest import AddedToken, Tokens
from issun.runtime.text.json_tokenizer import HIDDEN, one_line_errors, open_rust


@dataclass(frozen=True, slots=True)
class _Class:
    """What a tokenizer class of transformers adds to a file.

    `roles` has its default tokens. `add_bos` is the default of `add_bos_token`; None if the file's
    post-processor decides.
    """

    roles: Mapping[str, str] = field(default_factory=dict)
    add_bos: bool | None = None


_END = "<|endoftext|>"
_CLASSES = {
    "LlamaTokenizer": _Class({"bos": "<s>", "eos": "</s>", "unk": "<unk>"}, add_bos=True),
    "GemmaTokenizer": _Class(
        {"bos": "<bos>", "eos": "<eos>", "unk": "<unk>", "pad": "<pad>"}, add_bos=True
    ),
    "GPTNeoXTokenizer": _Class(dict.fromkeys(("bos", "eos", "unk"), _END), add_bos=False),
    "GPT2Tokenizer": _Class(dict.fromkeys(("bos", "eos", "unk"), _END)),
    "Qwen2Tokenizer": _Class(dict.fromkeys(("eos", "unk", "pad"), _END)),
    "T5Tokenizer": _Class({"eos": "</s>", "unk": "<unk>", "pad": "<pad>"}),
}


def read_json_tokenizer(path: Path, name: str, rows: int) -> tuple[bytes, Tokens, dict[str, str]]:
    """Read the tokenizer.json at `path`, which transformers opens with the class `name`.

    Returns the content of the bundle's file, in which the control tokens are hidden, the tokens
    for the manifest, and the token of each role. Default tokens without one of the `rows` of the
    embedding are left out. Raises CheckpointError for an unsupported tokenizer and for invalid
    files next to it, BundleError for an invalid tokenizer.json or if the package is not installed.
    """
    own = _CLASSES.get(name, _Class())
    named, tokens = read_files(path.parent)
    rust = open_rust(path, path)
    with one_line_errors(path):
        roles = _add_tokens(rust, named, tokens, own, rows)
        _set_prefix_space(rust, named)
        begin = _begin(rust, named, own, roles)
        described = json.loads(rust.to_str())
        _check(described, path)
        special, added = _control_tokens(rust)
        content = json.dumps(_bundled(described, special.keys()), ensure_ascii=False).encode()
    ids = {role: special[token] for role, token in roles.items()}
    others = {i for role, i in ids.items() if role != "unk"}
    found = Tokens(
        kind="json",
        file="tokenizer.json",
        pieces=rust.get_vocab_size(with_added_tokens=False),
        do_lower_case=False,
        special=special,
        bos=ids.get("bos"),
        eos=ids.get("eos"),
        # A byte-level tokenizer has no unknown token, and names its end token instead.
        unk=ids["unk"] if "unk" in ids and ids["unk"] not in others else None,
        pad=ids.get("pad"),
        sep=ids.get("sep"),
        added=added,
        begin=tuple(begin),
    )
    return content, found, roles


def _add_tokens(
    rust: Any, named: Mapping[str, Any], tokens: Mapping[int, Token], own: _Class, rows: int
) -> dict[str, str]:
    """Add the tokens that only the other files have; returns the token of each role."""
    from tokenizers import AddedToken as RustToken  # noqa: PLC0415

    def rust_token(token: Token) -> Any:
        return RustToken(**asdict(token))

    known = {repr(token) for token in rust.get_added_tokens_decoder().values()}
    new = [rust_token(tokens[i]) for i in sorted(tokens)]
    new = [token for token in new if repr(token) not in known]
    by_role = {role: named.get(f"{role}_token", own.roles.get(role)) for role in SPECIAL_ROLES}
    size = rust.get_vocab_size()
    roles = {}
    for role, token in by_role.items():
        text = token.content if isinstance(token, Token) else token
        default = f"{role}_token" not in named and rust.token_to_id(text or "") is None
        if text and not (default and size >= rows):
            roles[role] = text
    more = [*(named.get("additional_special_tokens") or []), *named["extra_special_tokens"]]
    spelled = {token.content for token in rust.get_added_tokens_decoder().values()}
    spelled |= {token.content for token in new}
    listed = [*(by_role[role] for role in roles), *more]
    texts = {token.content if isinstance(token, Token) else token for token in listed}
    for token in listed:
        if isinstance(token, Token):
            new.append(rust_token(token))
        elif token not in spelled:
            new.append(RustToken(token, special=True, normalized=False))
    for token in new:
        token.special = token.special or token.content in texts
    rust.add_tokens(new)
    return roles


def _set_prefix_space(rust: Any, named: Mapping[str, Any]) -> None:
    """Let tokenizer_config.json decide about the space before a text, as transformers does."""
    if rust.pre_tokenizer is None:
        return
    state = json.loads(rust.pre_tokenizer.__getstate__())
    wanted = bool(named.get("add_prefix_space", False))
    if state["type"] == "ByteLevel" and state["add_prefix_space"] != wanted:
        rust.pre_tokenizer.add_prefix_space = wanted


def _begin(rust: Any, named: Mapping[str, Any], own: _Class, roles: Mapping[str, str]) -> list[int]:
    """The ids that transformers puts in front of a text."""
    if own.add_bos is not None:
        add = named.get("add_bos_token", own.add_bos)
        return [rust.token_to_id(roles["bos"])] if add and "bos" in roles else []
    text: list[int] = rust.encode("a", add_special_tokens=False).ids
    whole: list[int] = rust.encode("a").ids
    return next((whole[:i] for i in range(len(whole)) if whole[i : i + len(text)] == text), [])


def _check(described: Mapping[str, Any], path: Path) -> None:
    kind = described["model"]["type"]
    if kind not in ("BPE", "Unigram"):
        raise CheckpointError(
            "{path}: the tokenizer's model is {kind}; issun supports BPE and Unigram.",
            path=path,
            kind=kind,
        )
    if described["decoder"] is None:
        raise CheckpointError("{path}: the tokenizer has no decoder.", path=path)


def _control_tokens(rust: Any) -> tuple[dict[str, int], dict[str, AddedToken]]:
    """The ids of all control tokens, and the entries of those that have a text or flags."""
    special, added = dict[str, int](), dict[str, AddedToken]()
    for i, token in sorted(rust.get_added_tokens_decoder().items()):
        if not (token.special or is_marker(token.content)):
            continue
        flags = {name: getattr(token, name) for name in ("lstrip", "rstrip", "single_word")}
        entry = AddedToken(id=i, special=token.special, **flags)
        special[token.content] = i
        if entry != AddedToken(id=i, special=True):
            added[token.content] = entry
    return special, added


def _bundled(described: dict[str, Any], hidden: AbstractSet[str]) -> dict[str, Any]:
    """The bundle's file, in which no text contains the spelling of a `hidden` token; ids stay.

    Post-processor, truncation, padding and dropout are removed.
    """

    def spelled(token: str) -> str:
        return HIDDEN + token if token in hidden else token

    model = dict(described["model"])
    if model["type"] == "BPE":
        model["vocab"] = {spelled(token): i for token, i in model["vocab"].items()}
        # Merges that make a hidden token would lack their result.
        model["merges"] = [
            (one, other) for one, other in model["merges"] if not {one, other, one + other} & hidden
        ]
        model["dropout"] = None
    else:
        model["vocab"] = [[spelled(token), score] for token, score in model["vocab"]]
    if model.get("unk_token"):
        model["unk_token"] = spelled(model["unk_token"])
    added = [token | {"content": spelled(token["content"])} for token in described["added_tokens"]]
    rest = {"post_processor": None, "truncation": None, "padding": None}
    return described | {"model": model, "added_tokens": added} | rest
