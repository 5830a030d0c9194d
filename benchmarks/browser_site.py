"""Sites with what measures them: `issun.benchmarks.browser` opens them."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from pathlib import Path

from issun.benchmarks.errors import BenchError
from issun.runtime.manifest import read_manifest
from issun.runtime.weights.proto import parse_model

_PAGE = '<!doctype html><title>issun</title><script type="module" src="browser.mjs"></script>'
_COLD = '<script type="module" src="cold_start.mjs"></script>'
_DATA = "model.onnx_data"  # as transformers.js names it
_HERE = Path(__file__).parent


def add_measurement(site: Path) -> None:
    """Add a page that measures the engine."""
    (site / "measure.html").write_text(_PAGE, encoding="utf-8")
    shutil.copy(_HERE / "browser.mjs", site)


def add_question(site: Path) -> None:
    """Let the site's page ask a question at once, and send how long the answer took."""
    shutil.copy(_HERE / "cold_start.mjs", site)
    index, worker = site / "index.html", site / "sw.js"
    before = index.read_bytes()
    after = before.replace(b"</head>", f"{_COLD}</head>".encode(), 1)
    index.write_bytes(after)
    worker.write_bytes(worker.read_bytes().replace(_hash(before), _hash(after)))


def _hash(content: bytes) -> bytes:
    """As the service worker has it."""
    return base64.b64encode(hashlib.sha256(content).digest())


def add_transformers(bundle: Path, site: Path, runtime: Path | None) -> None:
    """Copy transformers.js, and a bundle that was exported with Optimum as it expects a model."""
    manifest = read_manifest(bundle)
    if manifest.graph != "optimum" or runtime is None:
        raise BenchError("--transformers needs --runtime, and a bundle exported --via optimum.")
    modules = runtime / "node_modules" if (runtime / "node_modules").is_dir() else runtime
    package = modules / "@huggingface" / "transformers"
    if not package.is_dir():
        raise BenchError("{folder} has no @huggingface/transformers.", folder=modules)
    shutil.copytree(package / "dist", site / "transformers")
    own = package / "node_modules" / "onnxruntime-web"
    runtimes = (own if own.is_dir() else modules / "onnxruntime-web") / "dist"
    for path in (*runtimes.glob("ort-wasm-*.wasm"), *runtimes.glob("ort-wasm-*.mjs")):
        shutil.copy(path, site / "transformers")
    shutil.copy(_HERE / "transformers.mjs", site)
    network = manifest.architecture
    config = {
        "model_type": network.family,
        "vocab_size": network.vocab_size,
        **{name: getattr(network, name) for name in ("n_layer", "n_head", "n_embd", "n_positions")},
    }
    folder = site / "peer"
    (folder / "onnx").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    model = parse_model((bundle / manifest.graphs[manifest.kv_cache]).read_bytes())
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                if not (folder / "onnx" / _DATA).exists():
                    shutil.copy(bundle / entry.value, folder / "onnx" / _DATA)
                entry.value = _DATA
    (folder / "onnx" / "model.onnx").write_bytes(model.SerializeToString())
