"""The files of the site's page: those of the server's chat page, with the engine in place of it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from issun.web.errors import WebError

_HERE = Path(__file__).parent
_PAGE = _HERE.parent / "server" / "page"
_APP = _HERE / "app"
_SERVER_ONLY = ("sse.js",)
_LANGUAGES = ("en.json", "ja.json")
# No inline scripts and no other origins. A meta tag cannot say who may show the page in a frame.
_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; "
    "style-src 'self'; connect-src 'self'; img-src 'self' data:; manifest-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)
_APPLICATION = {
    "name": "issun (一寸)",
    "short_name": "issun",
    "lang": "ja",
    "start_url": "./",
    "scope": "./",
    "display": "standalone",
    "background_color": "#ffffff",
    "theme_color": "#1f5f8b",
    "icons": [
        {"src": "page/icon.svg", "sizes": "any", "type": "image/svg+xml"},
        {"src": "page/icon-192.png", "sizes": "192x192", "type": "image/png"},
        {"src": "page/icon-512.png", "sizes": "512x512", "type": "image/png"},
    ],
}


def page_files() -> dict[str, bytes]:
    """The content of the page's and the engine's files, by their paths in the site."""
    if not _PAGE.is_dir():
        raise WebError("The chat page is missing: install issun again.")
    files = {
        f"page/{path.name}": path.read_bytes()
        for path in sorted(_PAGE.iterdir())
        if path.name not in ("index.html", *_SERVER_ONLY)
    }
    own = [path for path in sorted(_APP.iterdir()) if path.name not in ("sw.js", *_LANGUAGES)]
    files |= {f"page/{path.name}": path.read_bytes() for path in own}
    files |= {f"page/{name}": _texts(name) for name in _LANGUAGES}
    engine = sorted((_HERE / "engine").glob("*.mjs"))
    files |= {f"engine/{path.name}": path.read_bytes() for path in engine}
    files["app.webmanifest"] = to_json(_APPLICATION)
    files["index.html"] = _index((_PAGE / "index.html").read_text(encoding="utf-8"))
    return files


def service_worker(files: Mapping[str, bytes]) -> bytes:
    """The service worker that stores `files`, which their hashes identify."""
    hashes = {
        path: base64.b64encode(hashlib.sha256(content).digest()).decode()
        for path, content in files.items()
    }
    code = (_APP / "sw.js").read_text(encoding="utf-8")
    return code.replace("{}", json.dumps(hashes, indent=2), 1).encode()


def _texts(name: str) -> bytes:
    """The interface texts in one language; the site's replace those that speak of a server."""
    texts = [json.loads((f / name).read_text(encoding="utf-8")) for f in (_PAGE, _APP)]
    return to_json(texts[0] | texts[1])


def _index(page: str) -> bytes:
    head = [
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}" />',
        '<meta name="theme-color" content="#1f5f8b" />',
        '<link rel="manifest" href="app.webmanifest" />',
        '<link rel="apple-touch-icon" href="page/icon-192.png" />',
        "<title>",
    ]
    return page.replace('"/page/', '"page/').replace("<title>", "\n    ".join(head), 1).encode()


def to_json(value: object) -> bytes:
    """The content of a JSON file that people can read."""
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()
