"""Measures a bundle in a browser, beside Python and transformers.js.

`python -m issun.benchmarks.browser BUNDLE... [--threads 1 2] [--rounds 5]` writes the site of each
bundle, opens its engine in Chromium without a window, and prints a table: seconds to open it from
a local server, and tokens per second of prefill and of decoding after it (medians). The rounds of
browser and Python alternate, so that both see the same machine. Before that it opens the page with
nothing stored, asks a question at once, and prints the seconds until the end of the answer.

`--transformers BUNDLE` names one that was exported `--via optimum`; transformers.js runs its graph
in the same rounds. Its package is `@huggingface/transformers` in the folder of `--runtime`.
"""

from __future__ import annotations

import argparse
import json
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from issun.benchmarks.browser_site import add_measurement, add_question, add_transformers
from issun.benchmarks.errors import BenchError
from issun.runtime import Model
from issun.web import write_site
from issun.web.serving import SiteHandler, site_server

TOKENS = 128  # of the prompt, and decoded after it
_PATIENCE = 1800.0  # seconds
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(slots=True)
class Seconds:
    """What several rounds took: opening, prefill and decode of `TOKENS` tokens, and memory."""

    open: list[float] = field(default_factory=list)
    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    memory_bytes: int = 0

    def add(self, found: dict[str, Any]) -> None:
        """Add the rounds of one process."""
        for name in ("open", "prefill", "decode"):
            getattr(self, name).extend(found[name])
        self.memory_bytes = max(self.memory_bytes, found.get("memory_bytes", 0))

    def row(self) -> str:
        """The cells of the table."""
        memory = f"{self.memory_bytes / 1e6:,.0f} MB" if self.memory_bytes else ""
        speeds = (f"{TOKENS / median(part):,.1f}" for part in (self.prefill, self.decode))
        return " | ".join((f"{median(self.open):.2f} s", *speeds, memory))


_results: queue.Queue[dict[str, Any]] = queue.Queue()


class _PlainHandler(SiteHandler):
    """A site as plain hosting delivers it, that takes a result."""

    def do_POST(self) -> None:  # noqa: N802
        """Take the result of a measurement."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        _results.put(json.loads(body))
        self.send_response(204)
        self.end_headers()


class _Handler(_PlainHandler):
    """A site whose pages may share memory between threads."""

    def end_headers(self) -> None:
        """Add what isolates the page."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()


def in_browser(address: str, program: str) -> dict[str, Any]:
    """What a page sends from a new browser with an empty profile; raises BenchError without it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
        process = subprocess.Popen(
            [program, *flags, address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            found = _results.get(timeout=_PATIENCE)
        except queue.Empty:
            found = {"error": f"no result in {_PATIENCE:.0f} s"}
        finally:
            process.terminate()
            process.wait()
    if "error" in found:
        raise BenchError("The browser failed: {reason}", reason=found["error"])
    return found


def in_python(bundle: Path, threads: int, rounds: int) -> dict[str, Any]:
    """The same in this process."""
    found: dict[str, Any] = {"open": [], "prefill": [], "decode": []}
    began = time.perf_counter()
    with Model.load(bundle, threads=threads) as model:
        found["open"].append(time.perf_counter() - began)
        pieces = model.manifest.tokens.pieces
        for turn in range(rounds + 1):
            cache = model.new_cache()
            ids = [10 + (turn * 97 + i * 31) % (pieces - 10) for i in range(TOKENS)]
            start = time.perf_counter()
            model.decoder.prefill(cache, ids)
            read = time.perf_counter()
            for token in ids:
                model.decoder.step(cache, token)
            if turn:  # the first is a warm-up
                found["prefill"].append(read - start)
                found["decode"].append(time.perf_counter() - read)
    return found


@contextmanager
def served(folder: Path, handler: type[SiteHandler]) -> Iterator[str]:
    """The address of a folder."""
    with site_server(folder, 0, handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def cold_start(bundle: Path, runtime: Path | None, program: str) -> dict[str, Any]:
    """Seconds from opening the page with nothing stored to the end of an answer, and the answer."""
    with tempfile.TemporaryDirectory() as made:
        site = write_site(bundle, Path(made) / "site", runtime=runtime, notify=_note).folder
        add_question(site)
        with served(site, _PlainHandler) as url:
            return in_browser(url, program)


def _note(template: str, **values: Any) -> None:
    print(template.format(**values))


def main() -> None:
    """Measure the bundles of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5, help="of each process")
    parser.add_argument("--processes", type=int, default=3, help="of each way")
    parser.add_argument("--runtime", type=Path, help="folder with onnxruntime-web")
    parser.add_argument("--browser", help="Chromium's program")
    parser.add_argument("--transformers", type=Path, help="a bundle for transformers.js")
    args = parser.parse_args()
    program = args.browser or next(filter(None, map(shutil.which, _BROWSERS)), None)
    if program is None:
        raise BenchError("There is no Chromium on the path: name it with --browser.")
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, prompts of {TOKENS} tokens, "
        f"{args.rounds} rounds x {args.processes}"
    )
    for bundle in args.bundles:
        found = [cold_start(bundle, args.runtime, program) for _ in range(args.processes)]
        seconds = ", ".join(f"{one['seconds']:.2f}" for one in found)
        print(f"{bundle.name}, cold start to the end of the first answer: {seconds} s", flush=True)
        print(f"  {found[0]['answer']}")
    print("| bundle | threads | where | open | prefill, tok/s | decode, tok/s | memory |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for bundle in args.bundles:
        compare(bundle, args, program)


def compare(bundle: Path, args: argparse.Namespace, program: str) -> None:
    """Print the rows of a bundle."""
    with tempfile.TemporaryDirectory() as made:
        site = write_site(bundle, Path(made) / "site", runtime=args.runtime, notify=_note).folder
        add_measurement(site)
        if args.transformers:
            add_transformers(args.transformers, site, args.runtime)
        with served(site, _Handler) as url:
            for threads in args.threads:
                query = f"threads={threads}&tokens={TOKENS}&rounds={args.rounds}"
                address = f"{url}measure.html?{query}"
                ways: dict[str, Callable[[], dict[str, Any]]] = {
                    "browser": partial(in_browser, address, program),
                    "Python": partial(in_python, bundle, threads, args.rounds),
                }
                if args.transformers:
                    engine = f"{address}&engine=transformers"
                    ways["transformers.js"] = partial(in_browser, engine, program)
                seconds = {where: Seconds() for where in ways}
                for _ in range(args.processes):
                    for where, measure in ways.items():
                        seconds[where].add(measure())
                for where, found in seconds.items():
                    print(f"| {bundle.name} | {threads} | {where} | {found.row()} |", flush=True)


if __name__ == "__main__":
    main()
