"""What the clients were found to do: results.json, and docs/clients.md made from it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_MAX_FOUND = 400  # characters that are recorded of what a client said

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
PAGE = HERE.parents[1] / "docs" / "clients.md"

# The columns of the two tables; a feature of another column is one that a client has for itself.
TEXT = (
    "chat",
    "stream",
    "async",
    "batch",
    "system",
    "history",
    "sampling",
    "usage",
    "logprobs",
    "completions",
    "tokens",
    "models",
    "clear errors",
)
STRUCTURED = (
    "JSON object",
    "JSON schema",
    "choices",
    "regex",
    "tool named",
    "tool required",
    "tool streamed",
    "tool result",
    "tool auto",
    "responses",
)
# How a client is used with issun; the blocks are run as those of all pages are.
_START = """\
A client of the OpenAI API needs the server's address, any text as the key, and the model's name,
which `issun serve` prints. Start the server:

<!-- run: background -->
```sh
pip install ".[server]" openai
issun serve
```

Then, in Python:

<!-- run: shows 富士山 -->
```python
from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
question = {"role": "user", "content": "日本で一番高い山は?"}
answer = client.chat.completions.create(model="issun-embedded", messages=[question])
print(answer.choices[0].message.content)
```

[Server](server.md) shows it with curl and other clients, and lists the parameters.

## What works"""
_BROKEN = "runs to its end"


@dataclass(frozen=True)
class Feature:
    """One function of a client's script; `limit` says why it cannot work."""

    column: str
    name: str
    ok: bool
    limit: str | None = None
    found: str = ""  # what it said; recorded where it does not work

    @property
    def label(self) -> str:
        """The column and what tells the feature from others in it."""
        return f"{self.column}, {self.name}" if self.name else self.column


@dataclass(frozen=True)
class Client:
    """One client, its version, and its features in the order of its script."""

    name: str
    version: str = "?"
    date: str = ""
    features: list[Feature] = field(default_factory=list)

    @classmethod
    def read(cls, name: str, lines: str) -> Client:
        """The lines of JSON that a script printed; other lines are the client's own."""
        said = [json.loads(line) for line in lines.splitlines() if line.startswith('{"')]
        version = next((str(one["version"]) for one in said if "version" in one), "?")
        features = [
            Feature(**{key: one[key] for key in ("column", "name", "ok", "limit", "found")})
            for one in said
            if "column" in one
        ]
        return cls(name, version, datetime.now(UTC).date().isoformat(), features)

    @classmethod
    def broken(cls, name: str, reason: str, so_far: Client | None = None) -> Client:
        """A client whose script did not come to its end."""
        before = so_far or cls(name)
        failed = Feature(_BROKEN, "", ok=False, limit=None, found=reason)
        return cls(name, before.version, before.date, [*before.features, failed])

    def failed(self) -> list[Feature]:
        """What does not work though it could."""
        return [f for f in self.features if not f.ok and f.limit is None]

    def limited(self) -> list[Feature]:
        """What cannot work."""
        return [f for f in self.features if not f.ok and f.limit is not None]

    def summary(self) -> str:
        """How many features work."""
        works = sum(f.ok for f in self.features)
        return f"{works} of {len(self.features)} work, {len(self.limited())} cannot"

    def cell(self, column: str) -> str:
        """What the table says of a column: blank where the client has no such feature."""
        own = [f for f in self.features if f.column == column]
        works = sum(f.ok for f in own)
        if works == len(own):
            return "✓" if own else ""
        if all(f.ok or f.limit is not None for f in own):
            return "–" if not works else f"{works}/{len(own)}"
        return f"✗ {works}/{len(own)}"

    def missing_in(self, now: Client) -> list[str]:
        """What works here and not in `now`, a later run of the same client."""
        works = {(f.column, f.name) for f in now.features if f.ok}
        lost = [f for f in self.features if f.ok and (f.column, f.name) not in works]
        return [f"{self.name}: {f.label}" for f in lost]


def load() -> dict[str, Client]:
    """The recorded results by the client's name."""
    if not RESULTS.exists():
        return {}
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    return {
        one["name"]: Client(**one | {"features": [Feature(**f) for f in one["features"]]})
        for one in found
    }


def save(clients: dict[str, Client]) -> None:
    """Record the results and write the page."""
    ordered = [clients[name] for name in sorted(clients)]
    lines = [_record(asdict(client)) for client in ordered]
    RESULTS.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(ordered), encoding="utf-8")


def _record(client: dict[str, Any]) -> str:
    """A client as JSON, with one feature a line and without what says nothing."""
    features = client.pop("features")
    for feature in features:
        said = "" if feature["ok"] else " ".join(feature["found"].split())
        feature["found"] = said[:_MAX_FOUND]
    lines = [_json({k: v for k, v in f.items() if v or k in ("name", "ok")}) for f in features]
    return f'{_json(client).removesuffix("}")},"features":[\n' + ",\n".join(lines) + "\n]}"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def page(clients: Iterable[Client]) -> str:
    """docs/clients.md."""
    clients = list(clients)
    features = [f for client in clients for f in client.features]
    limited = sum(len(client.limited()) for client in clients)
    works = sum(f.ok for f in features)
    parts = [
        "# Clients that were tried",
        _START,
        f"{len(clients)} clients ask `issun serve` with the demonstration model, each in the form "
        f"that its own documentation shows: {works} of {len(features)} features work, "
        f"{limited} cannot work here, {len(features) - works - limited} fail.",
        "✓ works; 1/2 one of two ways to do it works and the other cannot; – cannot work here, "
        "with the reason below; ✗ fails; blank: the client has no such feature, or it was not "
        "tried. Where a model of 512 tokens gives a wrong answer in the right form, the feature "
        "works. `make clients` runs a few of the clients, `make clients CLIENTS=` all of them; "
        "`tests/clients/run.py --write` makes this page from what it finds.",
        "## Text",
        _matrix(clients, TEXT),
        "## Structure",
        _matrix(clients, STRUCTURED),
        "## Client by client",
        *[_section(client) for client in clients],
    ]
    return "\n\n".join(parts) + "\n"


def _matrix(clients: list[Client], columns: tuple[str, ...]) -> str:
    rows = [
        ["client", *columns],
        ["---"] * (1 + len(columns)),
        *[[_link(c.name), *[c.cell(column) for column in columns]] for c in clients],
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _link(name: str) -> str:
    return f"[{name}](#{name})"


def _section(client: Client) -> str:
    works = "; ".join(f"{f.label}" for f in client.features if f.ok and f.name)
    lines = [f"### {client.name}", f"Version {client.version}, {client.date}: {client.summary()}."]
    if works:
        lines.append(f"Works: {works}.")
    for title, some in (("Cannot", client.limited()), ("Fails", client.failed())):
        if some:
            lines.append("\n".join(f"- {title}: {f.label}: {_why(f)}" for f in some))
    return "\n\n".join(lines)


def _why(feature: Feature) -> str:
    """The reason in one line, with nothing in it that differs from machine to machine."""
    if feature.limit:
        return feature.limit
    found = " ".join(re.sub(r"https?://\S+", "", feature.found).split())
    return "`" + found.replace("`", "'")[:200] + "`"
