"""The site's files: which bundles, from where onnxruntime-web comes, and what is written."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import re
import shutil
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import onnx
import pytest
from msgspec.structs import replace

from issun.cli.main import main
from issun.runtime.demonstration import EMBEDDED
from issun.runtime.manifest import FileInfo, read_manifest, write_manifest
from issun.web import WebError, packages, write_site
from issun.web.bundle import WebBundle
from issun.web.supported import check_supported
from tests.conftest import Bundles
from tests.web.conftest import MakeSite

EXTERNAL = re.compile(r"""(?:src|href)="(?:/|https?:)|from "(?:/|https?:)""")


def test_the_graph_is_for_one_sequence_and_has_no_matmulnbits(bundle: Bundles) -> None:
    for folder in (EMBEDDED, bundle("head-8", kv_cache="int8")):
        manifest = read_manifest(folder)
        graph = onnx.load_model_from_string(WebBundle(folder, manifest).graph).graph
        assert "query_seqlens" not in {value.name for value in graph.input}
        assert "MatMulNBits" not in {node.op_type for node in graph.node}
        attention = [node for node in graph.node if node.op_type == "GroupQueryAttention"]
        assert attention
        assert all(len(node.input) <= 16 and node.input[-1] for node in attention)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"precision": {"name": "float32"}}, "its precision is float32"),
        ({"graph": "optimum"}, "that issun has exported itself"),
        ({"architecture": {"family": "gemma"}}, "only models of the usual families"),
        ({"tokens": {"kind": "llama"}}, "only the plain T5Tokenizer"),
        ({"tokens": {"legacy": False}}, "only the plain T5Tokenizer"),
    ],
)
def test_what_was_not_compared_is_refused(changes: dict[str, Any], reason: str) -> None:
    manifest = read_manifest(EMBEDDED)
    for field, value in changes.items():
        inner = isinstance(value, dict)
        new = replace(getattr(manifest, field), **value) if inner else value
        manifest = replace(manifest, **{field: new})
    with pytest.raises(WebError, match=reason):
        check_supported(EMBEDDED, manifest)


def test_a_large_file_is_refused() -> None:
    manifest = read_manifest(EMBEDDED)
    large = {**manifest.files, "model.onnx.data": FileInfo(2**31 + 1, "")}
    with pytest.raises(WebError, match="2,147,483,649 bytes"):
        WebBundle(EMBEDDED, replace(manifest, files=large))


def test_what_is_written(make_site: MakeSite) -> None:
    site = make_site(None)
    sizes = {p.relative_to(site).as_posix(): p.stat().st_size for p in site.rglob("*.*")}
    beside = sum(size for name, size in sizes.items() if not name.startswith("bundle/"))
    assert beside <= 16e6
    assert (site / "bundle/model.onnx.data").read_bytes() == (
        EMBEDDED / "model.onnx.data"
    ).read_bytes()
    index = (site / "index.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in index
    texts = [p for p in site.rglob("*.*") if p.suffix in (".html", ".js", ".mjs", ".css")]
    for path in texts:
        if path.parent.name != "ort":
            assert not EXTERNAL.search(path.read_text(encoding="utf-8")), path
    stored = json.loads(re.search(r"entries\((.*?})\)", worker(site), re.DOTALL)[1].split("*/")[1])  # type: ignore[index]
    assert {"index.html", "site.json", "ort/ort-wasm-simd-threaded.wasm"} <= stored.keys()
    for name, found in stored.items():
        digest = hashlib.sha256((site / name).read_bytes()).digest()
        assert base64.b64encode(digest).decode() == found
    assert {"issun-LICENSE", "onnxruntime-LICENSE"} <= {p.name for p in site.glob("licenses/*")}
    assert "MIT" in (site / "NOTICE.txt").read_text(encoding="utf-8")


def worker(site: Path) -> str:
    return (site / "sw.js").read_text(encoding="utf-8")


def test_texts_of_the_page_are_in_both_languages(make_site: MakeSite) -> None:
    page = make_site(None) / "page"
    english, japanese = (
        json.loads((page / name).read_text(encoding="utf-8")) for name in ("en.json", "ja.json")
    )
    assert english.keys() == japanese.keys()
    code = "".join(path.read_text(encoding="utf-8") for path in page.glob("*.js"))
    used = set(re.findall(r"""(?:\bt\(|\btext: |makeButton\()"(\w+)\"""", code))
    assert {"downloading", "removeModelTitle", "unstored"} <= used <= english.keys()
    engine = "".join(p.read_text(encoding="utf-8") for p in (page.parent / "engine").glob("*.mjs"))
    errors = set(re.findall(r'EngineError\("(\w+)"', engine))
    assert errors == {"errorChanged", "errorContext", "errorDownload", "errorTemplate"}
    assert errors <= english.keys()


def test_the_model_is_described_in_parts(make_site: MakeSite) -> None:
    described = json.loads((make_site(None) / "site.json").read_text(encoding="utf-8"))
    content = (EMBEDDED / "model.onnx.data").read_bytes()
    weights = described["weights"]
    size = weights["part_size"]
    parts = [content[at : at + size] for at in range(0, len(content), size)]
    assert weights["parts"] == [hashlib.sha256(part).hexdigest() for part in parts]
    assert (weights["size"], described["demonstration"]) == (len(content), True)


def test_licences_of_the_bundle_are_copied(bundle: Bundles, runtime: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle("head-8"), folder)
    (folder / "LICENSE.txt").write_text("Only for you.", encoding="utf-8")
    write_site(folder, tmp_path / "site", runtime=runtime)
    copied = tmp_path / "site" / "licenses" / "model-LICENSE.txt"
    assert copied.read_text(encoding="utf-8") == "Only for you."
    notice = (tmp_path / "site" / "NOTICE.txt").read_text(encoding="utf-8")
    assert read_manifest(folder).source.name in notice


def test_only_sites_are_replaced_and_only_with_force(
    make_site: MakeSite, runtime: Path, tmp_path: Path
) -> None:
    target = tmp_path / "site"
    shutil.copytree(make_site(None), target)
    (target / "mine.txt").write_text("old", encoding="utf-8")
    with pytest.raises(WebError, match="--force"):
        write_site(None, target, runtime=runtime)
    assert (target / "mine.txt").exists()
    write_site(None, target, runtime=runtime, force=True)
    assert not (target / "mine.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["site"]
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(WebError, match="not a site"):
        write_site(None, other, runtime=runtime, force=True)
    with pytest.raises(WebError, match="no folder"):
        write_site(None, tmp_path / "no" / "site", runtime=runtime)


def test_the_command(
    runtime: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    target = tmp_path / "site"
    command = ["issun", "web", "-o", str(target), "--runtime", str(runtime)]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert re.fullmatch(
        rf"{re.escape(str(target))}: 2\d\.\d MB, of which the bundle has 7\.9 MB\. "
        r"Any static web server can host it\.",
        lines[0],
    )
    assert lines[1:] == ["Hosting it passes the weights on: read NOTICE.txt in it first."]


class Registry:
    """A registry of npm that has a release of two files, and counts its requests."""

    def __init__(self) -> None:
        self.files = {name: f"content of {name}".encode() for name in ("a.mjs", "LICENSE")}
        self.requests: list[str] = []
        self.package = self.release(self.tarball())

    def tarball(self) -> bytes:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for name, content in self.files.items():
                folder = "package" if name == "LICENSE" else "package/dist"
                info = tarfile.TarInfo(f"{folder}/{name}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return packed.getvalue()

    def release(self, content: bytes) -> packages.Package:
        digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
        hashes = {name: hashlib.sha256(file).hexdigest() for name, file in self.files.items()}
        return packages.Package("@scope/thing", "1.2.3", 4, digest, hashes)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Registry]:
    found = Registry()
    content = found.tarball()
    found.package = found.release(content)  # gzip has the time in it

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.requests.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / "cache" / str(name))
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setenv("npm_config_registry", address)
        yield found
        server.shutdown()
        thread.join()


def test_a_package_is_downloaded_once(registry: Registry) -> None:
    notes: list[str] = []

    def notify(template: str, **values: object) -> None:
        notes.append(template.format(**values))

    for _ in range(2):
        assert packages.package_files(registry.package, None, notify) == registry.files
    assert registry.requests == ["/@scope/thing/-/thing-1.2.3.tgz"]
    assert [note[:46] for note in notes] == ["Downloading @scope/thing@1.2.3 (4 MB, once): h"]


def test_another_content_is_refused(registry: Registry, tmp_path: Path) -> None:
    package = dataclasses.replace(registry.package, sha512="another")
    with pytest.raises(WebError, match="another content than expected"):
        packages.package_files(package, None, ignore)
    assert not (tmp_path / "cache").exists()


def test_a_damaged_cache_is_reported(registry: Registry, tmp_path: Path) -> None:
    packages.package_files(registry.package, None, ignore)
    (tmp_path / "cache" / "issun" / "web" / "scope-thing-1.2.3" / "a.mjs").write_bytes(b"damaged")
    with pytest.raises(WebError, match=r"a\.mjs is not the file of @scope/thing@1\.2\.3"):
        packages.package_files(registry.package, None, ignore)


def test_without_a_network_the_error_says_what_to_do(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    with pytest.raises(WebError, match=r"npm install @scope/thing@1\.2\.3.*--runtime DIR"):
        packages.package_files(registry.package, None, ignore)


@pytest.mark.parametrize("below", [".", "dist", "node_modules/@scope/thing/dist"])
def test_a_folder_with_the_files(registry: Registry, tmp_path: Path, below: str) -> None:
    folder = tmp_path / "given" / below
    folder.mkdir(parents=True)
    for name, content in registry.files.items():
        (folder / name).write_bytes(content)
    given = tmp_path / "given"
    assert packages.package_files(registry.package, given, ignore) == registry.files
    (folder / "LICENSE").unlink()
    with pytest.raises(WebError, match=r"has no LICENSE of @scope/thing@1\.2\.3"):
        packages.package_files(registry.package, given, ignore)
    assert registry.requests == []


def ignore(template: str, **values: object) -> None:
    pass


def test_a_bundle_in_which_a_file_has_changed_is_refused(runtime: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(EMBEDDED, folder)
    manifest = read_manifest(folder)
    wrong = replace(manifest.files["model.onnx.data"], sha256="0" * 64)
    write_manifest(folder, replace(manifest, files={**manifest.files, "model.onnx.data": wrong}))
    with pytest.raises(Exception, match="differs from the file that was exported"):
        write_site(folder, tmp_path / "site", runtime=runtime)
    assert not (tmp_path / "site").exists()
