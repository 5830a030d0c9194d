"""Downloads from a local server that implements the hub's API."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from issun.export import CheckpointError
from issun.export.hub import locate, needed_files

REPO = "someone/japanese-gpt"
SHA = "0123456789abcdef0123456789abcdef01234567"
OLD_SHA = "fedcba9876543210fedcba9876543210fedcba98"

FILES = {
    name: f"what {name} holds".encode()
    for name in (
        "config.json",
        "generation_config.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "spiece.model",
        "model.safetensors",
        "pytorch_model.bin",
        "README.md",
        "rinna.png",
        "flax_model.msgpack",
        "training_args.bin",
        "onnx/model.onnx",
        "onnx/config.json",
    )
}
NEEDED = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer_config.json",
]


@dataclass
class Hub:
    """The server's repositories, and the requests it has received."""

    files: dict[str, bytes] = field(default_factory=lambda: dict(FILES))
    revisions: dict[str, str] = field(
        default_factory=lambda: {"main": SHA, SHA: SHA, "epoch4": OLD_SHA, OLD_SHA: OLD_SHA}
    )
    token: str | None = None
    status: int | None = None
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""

    def downloaded(self) -> list[str]:
        got = [path for method, path, _ in self.requests if method == "GET" and "/resolve/" in path]
        return sorted(path.split("/resolve/")[1].partition("/")[2] for path in got)


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def answer(self) -> None:  # noqa: PLR0911
        hub, path = self.hub, self.path.partition("?")[0]
        authorization = self.headers.get("Authorization")
        if (
            REPO not in path and "someone/else" not in path
        ):  # requests that the library makes by itself
            return self.send(404, b"{}")
        hub.requests.append((self.command, path, authorization))
        if hub.status is not None:
            return self.send(hub.status, b"{}")
        if hub.token is not None and authorization != f"Bearer {hub.token}":
            return self.send(401, b"{}", **{"X-Error-Code": "RepoNotFound"})
        api = f"/api/models/{REPO}"
        if path.startswith(f"{api}/tree/"):
            tree = [
                {
                    "type": "file",
                    "path": name,
                    "size": len(raw),
                    "oid": hashlib.sha1(raw, usedforsecurity=False).hexdigest(),
                }
                for name, raw in hub.files.items()
            ]
            return self.send(200, json.dumps(tree).encode())
        if path == api or path.startswith(f"{api}/revision/"):
            sha = hub.revisions.get(path.removeprefix(api).removeprefix("/revision/") or "main")
            if sha is None:
                return self.send(404, b"{}", **{"X-Error-Code": "RevisionNotFound"})
            siblings = [{"rfilename": name} for name in hub.files]
            info = {"id": REPO, "modelId": REPO, "sha": sha, "siblings": siblings, "tags": []}
            return self.send(200, json.dumps(info).encode())
        if path.startswith(f"/{REPO}/resolve/"):
            revision, _, name = path.removeprefix(f"/{REPO}/resolve/").partition("/")
            if name in hub.files and revision in hub.revisions:
                content = hub.files[name]
                etag = f'"{hashlib.sha256(content).hexdigest()}"'
                commit = hub.revisions[revision]
                return self.send(200, content, **{"ETag": etag, "X-Repo-Commit": commit})
        return self.send(404, b"{}", **{"X-Error-Code": "RepoNotFound"})

    def send(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield hub
    server.shutdown()
    thread.join()
    server.server_close()


_LOCATE = """
import json, sys
from issun.export import hub
from issun.export import CheckpointError
options = json.loads(sys.argv[2])
if "refuse" in options:
    def check(folder, words=options.pop("refuse")):
        raise CheckpointError(words + " {names}", names=sorted(p.name for p in folder.iterdir()))
    options["check"] = check
try:
    found = getattr(hub, options.pop("how", "locate"))(sys.argv[1], **options)
except CheckpointError as error:
    print(json.dumps({"error": str(error)}))
else:
    files = {str(p.relative_to(found.folder)): p.read_bytes().decode()
             for p in found.folder.rglob("*") if p.is_file()}
    print(json.dumps({"files": files, "name": found.name, "revision": found.revision}))
"""


@dataclass
class Client:
    """Locates checkpoints in another process with a separate cache."""

    home: Path

    def __call__(
        self, hub: Hub, source: str = REPO, *, offline: bool = False, **options: Any
    ) -> Any:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        kept = {k: v for k, v in kept.items() if not k.lower().endswith("_proxy")}
        environment = kept | {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(self.home),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "1" if offline else "0",
        }
        done = subprocess.run(
            [sys.executable, "-c", _LOCATE, source, json.dumps(options)],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def error(self, hub: Hub, **options: Any) -> str:
        found = self(hub, **options)
        assert set(found) == {"error"}, found
        assert "\n" not in found["error"]
        return str(found["error"])


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path / "home")


# --- from the hub ---


@pytest.mark.slow
def test_only_the_needed_files_are_downloaded(hub: Hub, client: Client) -> None:
    found = client(hub)
    assert sorted(found["files"]) == NEEDED == hub.downloaded()
    assert all(text == FILES[name].decode() for name, text in found["files"].items())
    assert (found["name"], found["revision"]) == (REPO, SHA)
    assert all(authorization is None for _, _, authorization in hub.requests)


@pytest.mark.slow
def test_pickled_weights_if_there_are_no_others(hub: Hub, client: Client) -> None:
    del hub.files["model.safetensors"]
    found = client(hub)
    assert "pytorch_model.bin" in found["files"]
    assert "training_args.bin" not in found["files"]


@pytest.mark.slow
def test_revision_and_token_are_sent(hub: Hub, client: Client) -> None:
    hub.token = "hf_secret"
    found = client(hub, revision="epoch4", **{"token": "hf_secret"})
    assert found["revision"] == OLD_SHA
    assert ("GET", f"/api/models/{REPO}/revision/epoch4", "Bearer hf_secret") in hub.requests
    resolved = {path.split("/")[4] for _, path, _ in hub.requests if "/resolve/" in path}
    assert resolved == {OLD_SHA}
    assert all(authorization == "Bearer hf_secret" for _, _, authorization in hub.requests)


@pytest.mark.slow
def test_no_such_model(hub: Hub, client: Client) -> None:
    message = client.error(hub, source="someone/else")
    assert (
        message
        == "The hub refused someone/else at revision main: it does not exist, or needs a token"
    )
    assert hub.downloaded() == []


@pytest.mark.slow
def test_no_such_revision(hub: Hub, client: Client) -> None:
    message = client.error(hub, revision="v9")
    assert message == f"The hub refused {REPO} at revision v9: it does not exist, or needs a token"


@pytest.mark.slow
def test_a_token_is_needed(hub: Hub, client: Client) -> None:
    hub.token = "hf_secret"
    for options in ({}, {"token": "hf_wrong"}):
        message = client.error(hub, **options)
        assert (
            message
            == f"The hub refused {REPO} at revision main: it does not exist, or needs a token"
        )
        assert "hf_" not in message


# --- errors before the weights are downloaded ---

SMALL = [name for name in NEEDED if name != "model.safetensors"]
ADAPTER = json.dumps({"base_model_name_or_path": "someone/base"}).encode()


@pytest.mark.slow
def test_check_gets_all_files_but_the_weights(hub: Hub, client: Client) -> None:
    hub.files["added_tokens.json"] = b"{}"
    small = sorted([*SMALL, "added_tokens.json"])
    assert client.error(hub, refuse="not this:") == f"not this: {small}"
    assert hub.downloaded() == small


@pytest.mark.slow
def test_adapter_is_refused_with_the_name_of_its_base(hub: Hub, client: Client) -> None:
    hub.files = {
        "adapter_config.json": ADAPTER,
        "adapter_model.safetensors": b"",
        "spiece.model": b"pieces",
    }
    message = client.error(hub)
    assert message.startswith(
        f"{REPO} is an adapter for someone/base: export that model with --adapter"
    )
    assert hub.downloaded() == ["adapter_config.json", "spiece.model"]


@pytest.mark.sampled
@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin.index.json"])
def test_adapter_next_to_a_model_is_refused(hub: Hub, client: Client, weights: str) -> None:
    kept = {name: FILES[name] for name in SMALL}
    hub.files = kept | {weights: b"", "adapter_model.bin": b"", "adapter_config.json": ADAPTER}
    message = client.error(hub)
    assert message.startswith(
        f"{REPO} contains an adapter for someone/base (adapter_config.json, adapter_model.bin) "
        "next to"
    )
    assert hub.downloaded() == sorted([*SMALL, "adapter_config.json"])


@pytest.mark.slow
def test_adapter_without_a_config_is_refused(hub: Hub, client: Client) -> None:
    hub.files["adapter_model.safetensors"] = b""
    assert client.error(hub).startswith(f"{REPO} contains an adapter for another model")
    assert hub.downloaded() == SMALL


@pytest.mark.slow
def test_adapter_in_a_subfolder_is_ignored(hub: Hub, client: Client) -> None:
    hub.files["epoch-1/adapter_config.json"] = ADAPTER
    assert sorted(client(hub)["files"]) == NEEDED


# --- tokenizer only ---


@pytest.mark.slow
def test_only_the_tokenizer_files_are_downloaded(hub: Hub, client: Client) -> None:
    hub.files |= {"added_tokens.json": b"{}", "big.model": b"", "adapter_config.json": ADAPTER}
    found = client(hub, how="locate_tokenizer")
    expected = ["added_tokens.json", "config.json", "special_tokens_map.json", "spiece.model"]
    assert sorted(found["files"]) == [*expected, "tokenizer_config.json"] == hub.downloaded()
    assert (found["name"], found["revision"]) == (REPO, SHA)
    hub.url = "http://127.0.0.1:9"
    assert client(hub, how="locate_tokenizer") == found


@pytest.mark.slow
def test_repository_without_a_tokenizer(hub: Hub, client: Client) -> None:
    hub.files = {"vocab.json": b"{}", "tokenizer_config.json": b"{}", "config.json": b"{}"}
    message = client.error(hub, how="locate_tokenizer")
    assert message.startswith(f"{REPO} has vocab.json but no tokenizer that issun reads")
    assert hub.downloaded() == []


@pytest.mark.slow
def test_tokenizer_that_needs_a_token(hub: Hub, client: Client) -> None:
    hub.token = "hf_secret"
    message = client.error(hub, how="locate_tokenizer")
    assert (
        message == f"The hub refused {REPO} at revision main: it does not exist, or needs a token"
    )
    assert client(hub, how="locate_tokenizer", **{"token": "hf_secret"})["revision"] == SHA


@pytest.mark.slow
def test_only_the_two_files_of_an_adapter_are_downloaded(hub: Hub, client: Client) -> None:
    names = ["adapter_config.json", "adapter_model.safetensors"]
    others = ["README.md", "spiece.model", "optimizer.pt"]
    hub.files = {name: name.encode() for name in [*names, *others]}
    found = client(hub, how="locate_adapter")
    assert sorted(found["files"]) == names == hub.downloaded()
    assert client(hub, how="locate_adapter", offline=True) == found
    del hub.files["adapter_model.safetensors"]
    hub.files["adapter_model.bin"] = b"PK"
    message = client.error(hub, how="locate_adapter")
    assert message.startswith(f"{REPO} has its weights in adapter_model.bin")
    assert hub.downloaded() == names


# --- offline, with and without a cache ---


@pytest.mark.slow
def test_cached_files_are_not_downloaded_again(hub: Hub, client: Client) -> None:
    first = client(hub)
    hub.requests.clear()
    assert client(hub) == first
    assert hub.downloaded() == []
    hub.requests.clear()
    assert client(hub, offline=True) == first
    assert hub.requests == []
    hub.status = 503
    assert client(hub) == first
    hub.url = "http://127.0.0.1:9"
    assert client(hub) == first
    # Another revision is not in the cache.
    assert "not in the hub's local cache" in client.error(hub, revision="epoch4", offline=True)


@pytest.mark.slow
def test_a_refusal_takes_precedence_over_the_cache(hub: Hub, client: Client) -> None:
    client(hub)
    hub.status = 403
    assert client.error(hub) == f"The hub refused {REPO} at revision main: access is not granted"


@pytest.mark.sampled
@pytest.mark.parametrize("how", ["offline", "no server"])
def test_offline_and_not_in_the_cache(hub: Hub, client: Client, how: str) -> None:
    if how == "no server":
        hub.url = "http://127.0.0.1:9"
    message = client.error(hub, offline=how == "offline")
    assert f"no folder {REPO}" in message
    assert "the hub cannot be reached" in message
    assert "go online once, or name a folder" in message
    assert hub.requests == []
    assert "[Errno" not in message


# --- without any network ---


def test_a_folder_is_used_as_it_is(tmp_path: Path) -> None:
    found = locate(str(tmp_path))
    assert (found.folder, found.name, found.revision) == (tmp_path, tmp_path.name, None)


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="is a file; name its folder"):
        locate(str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize(
    "source", ["gpt", "./some/one", "../one", "a/b/c", "/no/where", "a b/c", "https://h.co/a"]
)
def test_neither_a_folder_nor_a_hub_id(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"no folder .*not a hub id \(owner/name\)"):
        locate(source)


@pytest.mark.parametrize(
    ("names", "weights"),
    [
        (["model.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
        (["pytorch_model.bin", "model.onnx"], ["pytorch_model.bin"]),
        (
            [
                "pytorch_model.bin",
                "model.safetensors.index.json",
                "model-00001-of-00002.safetensors",
            ],
            ["model.safetensors.index.json", "model-00001-of-00002.safetensors"],
        ),
        (
            [
                "pytorch_model.bin.index.json",
                "pytorch_model-00001-of-00001.bin",
                "training_args.bin",
            ],
            ["pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin"],
        ),
        (["sub/model.safetensors", "model.fp16.safetensors", "optimizer.pt"], []),
    ],
)
def test_weights_in_one_format_only(names: list[str], weights: list[str]) -> None:
    assert needed_files(["config.json", *names]) == ["config.json", *weights]


def test_a_chat_template_is_downloaded_so_that_it_is_reported() -> None:
    names = ["chat_template.jinja", "chat_template.json", "config.json", "README.md"]
    assert needed_files(names) == names[:3]
