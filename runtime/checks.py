"""Checks that the parts of a bundle match; otherwise answers would be wrong."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import onnxruntime as ort

from issun.runtime.errors import BundleError, TemplateError
from issun.runtime.manifest import AnyTemplate, JinjaTemplate, Manifest
from issun.runtime.text.prompt import PromptBuilder

MAX_SOURCE = 200_000  # characters of a chat template
# The placeholders of each text of a template.
_SLOTS = {
    "with_input": {"instruction", "input"},
    "without_input": {"instruction"},
    "chat.role_line": {"line"},
    "chat.user": {"message"},
    "chat.assistant": {"message"},
    "chat.system": {"system"},
    "chat.prompt": {"instruction", "input"},
}
_SLOT = re.compile(r"\{(\w+)\}")
# What looks like a special token: <s>, </s>, <|user|>, [SEP], [EOS].
_SPECIAL = re.compile(r"</?\|?\w+\|?>|\[[A-Z]+\]")


def template_faults(template: AnyTemplate, known: Collection[str]) -> list[str]:
    """Return the faults of a template, given the tokenizer's `known` special and added tokens."""
    if isinstance(template, JinjaTemplate):
        return _jinja_faults(template)
    chat = template.chat
    texts = {
        "with_input": template.with_input,
        "without_input": template.without_input,
        "chat.role_line": chat.role_line,
        "chat.user": chat.user,
        "chat.assistant": chat.assistant,
        "chat.system": "".join(chat.system),
    }
    if chat.prompt:
        texts["chat.prompt"] = chat.prompt
    faults = []
    for name, text in texts.items():
        found = set(_SLOT.findall(text))
        faults += [f"{name} lacks {{{slot}}}" for slot in sorted(_SLOTS[name] - found)]
        faults += [f"{name} has {{{slot}}}" for slot in sorted(found - _SLOTS[name])]
    rest = template.with_input + template.without_input + chat.prompt
    for token in sorted({*known, template.newline} - {""}, key=len, reverse=True):
        rest = rest.replace(token, " ")
    faults += [f"the tokenizer has no {token}" for token in sorted(set(_SPECIAL.findall(rest)))]
    if chat.reserve < 1:
        faults.append(f"chat.reserve is {chat.reserve}, below 1")
    return faults


def _jinja_faults(template: JinjaTemplate) -> list[str]:
    faults = []
    if len(template.source) > MAX_SOURCE:
        faults.append(f"source has {len(template.source):,} characters, above {MAX_SOURCE:,}")
    if template.reserve < 1:
        faults.append(f"reserve is {template.reserve}, below 1")
    return faults


def check_manifest(folder: Path, manifest: Manifest, pieces: int) -> None:
    """Raise BundleError unless tokens and template match the network and the tokenizer."""
    tokens, rows = manifest.tokens, manifest.architecture.vocab_size
    faults = template_faults(manifest.prompt, {*tokens.special, *tokens.added})
    if tokens.pieces != pieces or pieces > rows:
        faults.append(f"pieces is {tokens.pieces}; the tokenizer has {pieces}, the network {rows}")
    ids = {"bos": tokens.bos, "eos": tokens.eos, "unk": tokens.unk, **tokens.special}
    ids |= {token: added.id for token, added in tokens.added.items()}
    ids |= {f"end id {i}": i for i in tokens.ends} | {f"begin id {i}": i for i in tokens.begin}
    faults += [f"{n} is {i}" for n, i in ids.items() if i is not None and not 0 <= i < rows]
    if "" in tokens.special or "" in tokens.added:
        faults.append("a special token is empty")
    _raise(folder, faults)


def check_prompts(folder: Path, prompts: PromptBuilder) -> None:
    """Raise BundleError unless the bundle's template makes a prompt of a message."""
    try:
        prompts.instruction("あ")
    except TemplateError as error:
        raise BundleError("{folder}: {reason}", folder=folder, reason=error) from error


def check_graph(folder: Path, manifest: Manifest, session: ort.InferenceSession) -> None:
    """Raise BundleError unless the graph has the shapes that the manifest describes."""
    described, kind = manifest.architecture, manifest.graph
    _check_names(folder, session)
    past = [i for i in session.get_inputs() if i.name.startswith("past_key_values.")]
    names = {i.name for i in session.get_inputs()}
    logits = next((o for o in session.get_outputs() if o.name == "logits"), None)
    faults = []
    if ("logit_rows" in names) != (kind == "issun") or logits is None:
        faults.append(f"the graph is none of the kind {kind}")
    elif logits.shape[-1] not in (described.vocab_size, "vocab_size"):
        faults.append(f"the graph has {logits.shape[-1]} ids, not {described.vocab_size}")
    if len(past) != 2 * described.n_layer:
        faults.append(f"the graph has {len(past) // 2} layers, not {described.n_layer}")
    shape = (described.n_kv_head, described.kv_head_dim)
    for entry in past[:1]:
        found = (entry.shape[1], entry.shape[3])
        if all(isinstance(n, int) for n in found) and found != shape:
            faults.append(f"the graph has heads of {found}, not {shape}")
    _raise(folder, faults)


def _check_names(folder: Path, session: ort.InferenceSession) -> None:
    """Raise BundleError unless what ONNX Runtime reports of inputs and outputs can be read."""
    try:
        for value in (*session.get_inputs(), *session.get_outputs()):
            _ = value.name, value.shape
    except UnicodeDecodeError as error:
        raise BundleError(
            "{folder} is damaged: a name in the graph is not UTF-8. Export it again.",
            folder=folder,
        ) from error


def _raise(folder: Path, faults: list[str]) -> None:
    if faults:
        raise BundleError(
            "{folder}: the manifest does not match the bundle: {faults}.",
            folder=folder,
            faults="; ".join(faults),
        )
