"""Seeded mutations of bytes, of JSON and of graphs; the same seed makes the same mutation."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

from issun.runtime.weights.proto import parse_model

Mutate = Callable[[bytes, Random], bytes]

# Values that a malicious person or a broken program may write to a field.
ODD: tuple[object, ...] = (
    *(None, True, False, 0, 1, -1, 7, 255, 1024, 2**31, 2**32 - 1, 2**63, -(2**63), 10**30),
    *(0.5, -0.0, 1e-300, 1e308, float("nan"), float("inf"), float("-inf")),
    *("", " ", "\0", "\n", "\x1b[31m", "a" * 5000, "\ud800", "\u2028", "😀", "{", "{0}", "{x!r}"),
    *("..", "../x", "/etc/passwd", "model.onnx", "spiece.model", "int4", "</s>", "[SEP]"),
    *([], {}, [[]], [None], {"": ""}, {"id": -1}, ["a"] * 100, [[[[[[]]]]]], {"__type": "x"}),
)
_TEXTS = (b"\0", b"\xff", b"\xed\xa0\x80", b"{", b"}", b'"', b"[" * 3000, b"-1", b"1e999", b"NaN")
_EDITS = (1, 1, 1, 2, 4)  # mostly few, so that some mutations pass the checks


def mutate_bytes(content: bytes, rng: Random) -> bytes:
    """Change, remove, repeat or insert a few bytes."""
    found = bytearray(content)
    for _ in range(rng.choice(_EDITS)):
        place = rng.randrange(len(found) + 1)
        end = min(len(found), place + rng.choice((1, 1, 2, 4, 16, 200)))
        kind = rng.randrange(6)
        if kind <= 1 and place < len(found):
            found[place] ^= 1 << rng.randrange(8)
        elif kind == 2:
            found[place:end] = rng.randbytes(end - place)
        elif kind == 3:
            found[place:place] = rng.choice((*_TEXTS, bytes(found[place:end])))
        elif kind == 4:
            del found[place:end]
        elif rng.random() < 0.2:  # most truncated files are refused at once
            del found[place:]
    return bytes(found)


def mutate_json(content: bytes, rng: Random) -> bytes:
    """Change some of the values of a JSON text; sometimes its bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(content, rng)
    value = json.loads(content)
    for _ in range(rng.choice(_EDITS)):
        value = _change(value, rng)
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    return text.encode("utf-8", "surrogatepass")


def _change(value: Any, rng: Random) -> Any:
    """Return `value` with one part changed; all depths are equally likely."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return deepcopy(rng.choice(ODD))
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = rng.choice(keys)
    kind = rng.randrange(10)
    if kind == 0:
        del value[key]
    elif kind == 1 and isinstance(value, dict):
        value[str(rng.choice(ODD))] = value[key]
    elif kind == 2:
        value[key] = deepcopy(value[rng.choice(keys)])
    elif kind == 3 and isinstance(value[key], int) and not isinstance(value[key], bool):
        value[key] += rng.choice((-1, 1, 8, -8, 1000))
    else:
        value[key] = _change(value[key], rng)
    return value


def mutate_graph(content: bytes, rng: Random) -> bytes:
    """Change the nodes, the tensors and the references of an ONNX graph; sometimes its bytes."""
    if rng.random() < 0.4:
        return mutate_bytes(content, rng)
    model = parse_model(content)
    for _ in range(rng.choice(_EDITS)):
        rng.choice((_change_node, _change_tensor, _change_reference))(model.graph, rng)
    changed: bytes = model.SerializeToString()
    return changed


def _change_node(graph: Any, rng: Random) -> None:
    place = rng.randrange(len(graph.node))
    node, other = graph.node[place], rng.choice(graph.node)
    kind = rng.randrange(5)
    if kind == 0 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(["", "x", *other.input])
    elif kind == 1:
        node.op_type, node.domain = other.op_type, other.domain
    elif kind == 2 and node.attribute:
        del node.attribute[rng.randrange(len(node.attribute))]
    elif kind == 3 and other.attribute:
        node.attribute.add().CopyFrom(rng.choice(other.attribute))
    elif kind == 4 and rng.random() < 0.3:
        del graph.node[place]


def _change_tensor(graph: Any, rng: Random) -> None:
    place = rng.randrange(len(graph.initializer))
    tensor, other = graph.initializer[place], rng.choice(graph.initializer)
    kind = rng.randrange(4)
    if kind == 0:
        tensor.data_type = rng.choice((0, 1, 2, 3, 6, 7, 8, 9, 10, 16, 21, 22, -1, 2**31 - 1))
    elif kind == 1:
        tensor.name = rng.choice((other.name, "", "x"))
    elif kind == 2:
        tensor.raw_data = mutate_bytes(tensor.raw_data, rng)
    elif rng.random() < 0.3:
        del graph.initializer[place]


def _change_reference(graph: Any, rng: Random) -> None:
    """Change a tensor's location in the data file."""
    tensors = [tensor for tensor in graph.initializer if tensor.external_data]
    tensor = rng.choice(tensors)
    place = rng.randrange(len(tensor.external_data))
    values = (
        *("", "0", "-1", "1", "4096", "4097", "99999999", str(2**62), str(2**64), "x", " 8", "1e3"),
        *("issun.json", "spiece.model", "model.onnx.data", "../x", "/etc/passwd"),
        *(field.value for field in rng.choice(tensors).external_data),
    )
    if rng.random() < 0.2:
        del tensor.external_data[place]
    elif rng.random() < 0.2:
        tensor.external_data.add(key=tensor.external_data[place].key, value=rng.choice(values))
    else:
        tensor.external_data[place].value = rng.choice(values)
