"""Sites, a plain web server for them, and a real browser."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from issun.runtime.weights import session
from issun.web import write_site
from issun.web.serving import site_server
from tests.web.node import MODULES

MakeSite = Callable[[Path | None], Path]


@pytest.fixture(autouse=True)
def inputs_of_8_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Python round int8 inputs as the browser does, also on CPUs without VNNI."""
    monkeypatch.setattr(session, "reduce_range", lambda graph: False)


@pytest.fixture(scope="session")
def runtime() -> Path:
    """The packages of npm, as `npm install` puts them into build/web."""
    for name in ("onnxruntime-web", "@huggingface/jinja"):
        if not (MODULES / name).is_dir():
            pytest.skip(f"there is no {name} in build/web")
    return MODULES


@pytest.fixture(scope="session")
def make_site(tmp_path_factory: pytest.TempPathFactory, runtime: Path) -> MakeSite:
    """`make_site(bundle)`: a folder with the site of the bundle, None for the embedded model."""
    folder = tmp_path_factory.mktemp("sites")

    def make(bundle: Path | None) -> Path:
        target = folder / (bundle.name if bundle else "embedded")
        if not target.exists():
            write_site(bundle, target, runtime=runtime)
        return target

    return make


@pytest.fixture
def hosted(make_site: MakeSite, tmp_path: Path) -> Iterator[Hosted]:
    """The embedded model's site in a folder of a plain web server, as on GitHub Pages."""
    shutil.copytree(make_site(None), tmp_path / "repo")
    with hosting(tmp_path) as address:
        yield Hosted(tmp_path / "repo", f"{address}repo/")


class Hosted:
    """A site that is served, and the browser's pages of it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.requests: list[str] = []

    @contextmanager
    def visit(self, browser: Any, **options: Any) -> Iterator[Any]:
        """A page in a context of its own; a complaint on the console fails the test."""
        context = browser.new_context(locale="ja-JP", **options)
        try:
            with self.page_of(context) as page:
                yield page
        finally:
            context.close()

    @contextmanager
    def page_of(self, context: Any) -> Iterator[Any]:
        """A page of the site in `context`, whose answers are greedy."""
        complaints: list[str] = []
        context.set_default_timeout(60_000)
        context.on("request", lambda request: self.requests.append(request.url))
        page = context.new_page()
        page.add_init_script(
            "try { localStorage['issun.settings'] ??= '{\"temperature\": 0}' } catch {}"
        )
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(self.url)
        yield page
        assert complaints == []


@contextmanager
def hosting(folder: Path) -> Iterator[str]:
    """The address of a server of `folder`, which adds no headers of its own."""
    with site_server(folder, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()
