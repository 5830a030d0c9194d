/** Opens a site's bundle in onnxruntime-web. */

// @ts-ignore - a file of onnxruntime-web, which `issun web` puts there
import * as ort from "../ort/ort.wasm.min.mjs";
import { OPTIONS } from "./decoder.mjs";
import { openCache } from "./heap_cache.mjs";
import { Model } from "./model.mjs";
import { loadWeights } from "./weights.mjs";

/** @import { Site } from "./types.d.ts" */

const MOST_THREADS = 4;

/**
 * @param {URL} address of the site, with a slash at its end
 * @param {{ threads?: number, report?: (done: number, total: number) => void, open?: typeof openCache }} [options]
 */
export async function openModel(address, { threads = defaultThreads(), report = () => {}, open = openCache } = {}) {
  /** @type {Site} */
  const site = await (await get("site.json", address)).json();
  const files = [site.manifest, site.tokenizer, site.graph].map((path) => get(path, address));
  const jinja = site.jinja && import(new URL(site.jinja, address).href);
  const loading = loadWeights(site.weights, address, report);
  const [manifest, tokenizer, graph] = await Promise.all(files);
  const { bytes, stored } = await loading;
  const { env, InferenceSession } = ort;
  env.wasm.numThreads = threads;
  env.wasm.wasmPaths = {
    mjs: new URL("engine/wasm_module.mjs", address).href,
    wasm: new URL("ort/ort-wasm-simd-threaded.wasm", address).href,
  };
  const session = await InferenceSession.create(new Uint8Array(await graph.arrayBuffer()), {
    ...OPTIONS,
    executionProviders: ["wasm"],
    externalData: [{ path: site.weights.name, data: bytes }],
  });
  const described = await manifest.json();
  const read = new Uint8Array(await tokenizer.arrayBuffer());
  const model = new Model(described, read, open(ort, session, described), await jinja);
  return { site, model, stored, threads };
}

/** One for each physical core, which has two logical ones, if threads can share memory. */
export function defaultThreads() {
  if (!globalThis.crossOriginIsolated) return 1;
  return Math.max(1, Math.min(MOST_THREADS, navigator.hardwareConcurrency >> 1));
}

/** Bytes of WebAssembly's memory. */
export function memoryBytes() {
  const { issunWasm: wasm } = /** @type {{ issunWasm?: { HEAPU8: Uint8Array } }} */ (globalThis);
  return wasm?.HEAPU8.buffer.byteLength ?? 0;
}

/** @param {string} path @param {URL} site */
async function get(path, site) {
  const response = await fetch(new URL(path, site));
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response;
}
