/**
 * Keys and values on the heap of onnxruntime-web, bound by pointer as past and as present: nothing
 * is copied. This calls functions that are private to onnxruntime-web, so its version is pinned,
 * and `openCache` falls back to the public API.
 */

import { CHUNK } from "./decoder.mjs";
import { GrowingCache, pastNames, pastType, presentOf } from "./growing_cache.mjs";

/** @import { Cache, Feed, Manifest, Ort, Session, Wasm } from "./types.d.ts" */

const POINTER = 4; // bytes
/** @type {Record<string, [number, number]>} TensorProto.DataType and bytes of a value */
const TYPES = { float32: [1, 4], int8: [3, 1], int32: [6, 4], int64: [7, 8] };

/** The fastest cache that works. @param {Ort} ort @param {Session} session @param {Manifest} manifest @returns {Cache} */
export function openCache(ort, session, manifest) {
  const wasm = /** @type {{ issunWasm?: Wasm }} */ (globalThis).issunWasm; // see wasm_module.mjs
  const id = /** @type {{ handler?: { sessionId?: number } }} */ (session).handler?.sessionId;
  try {
    if (wasm && id !== undefined) return new HeapCache(wasm, id, session, manifest);
  } catch {
    // Another release of onnxruntime-web, or no memory for the whole context at once.
  }
  return new GrowingCache(ort, session, manifest);
}

/** @implements {Cache} */
export class HeapCache {
  #wasm;
  #session;
  #vocabulary;
  #graph;
  /** @type {number[]} handles of tensors and blocks of memory, until `close` */
  #handles = [];
  /** @type {number[]} */
  #blocks = [];
  /** @type {{ names: string[], inputNames: number, inputs: number, outputNames: number, outputs: number } | null} */
  #binding = null;

  /** @param {Wasm} wasm @param {number} id of the session @param {Session} session @param {Manifest} manifest */
  constructor(wasm, id, session, { architecture }) {
    this.#wasm = wasm;
    this.#session = id;
    this.#vocabulary = architecture.vocab_size;
    this.#graph = pastNames(session);
    const { n_head, n_kv_head = n_head, n_positions, kv_head_dim } = architecture;
    const shape = [1, n_kv_head, n_positions + CHUNK, kv_head_dim];
    const type = pastType(session);
    const size = shape.reduce((a, b) => a * b) * TYPES[type][1];
    try {
      for (const _ of this.#graph) {
        const block = this.#allocate(size);
        this.#blocks.push(block);
        this.#handles.push(this.#tensor(type, block, size, shape));
      }
    } catch (error) {
      this.close();
      throw error;
    }
  }

  close() {
    for (const handle of this.#handles) this.#wasm._OrtReleaseTensor(handle);
    for (const block of this.#blocks) this.#wasm._free(block);
    this.#handles = [];
    this.#blocks = [];
  }

  /** @param {Record<string, Feed>} feeds @param {number} _past which the feeds say too */
  async run(feeds, _past) {
    const wasm = this.#wasm;
    const { inputs, inputNames, outputs, outputNames, names } = (this.#binding ??= this.#bind(Object.keys(feeds)));
    /** @type {number[]} */
    const handles = [];
    /** @type {number[]} */
    const blocks = [];
    /** @type {(type: string, size: number, shape: number[]) => number} */
    const add = (type, size, shape) => {
      const block = this.#allocate(size);
      blocks.push(block);
      handles.push(this.#tensor(type, block, size, shape));
      return block;
    };
    try {
      names.forEach((name, i) => {
        const [type, values, shape] = feeds[name];
        const block = add(type, values.byteLength, shape);
        wasm.HEAPU8.set(new Uint8Array(values.buffer), block);
        wasm.setValue(inputs + POINTER * i, handles[i], "*");
      });
      const size = this.#vocabulary * 4;
      const logits = add("float32", size, [1, this.#vocabulary]);
      wasm.setValue(outputs, handles[names.length], "*");
      const counts = [names.length + this.#handles.length, 1 + this.#handles.length];
      const code = await wasm._OrtRun(this.#session, inputNames, inputs, counts[0], outputNames, counts[1], outputs, 0);
      if (code) throw new Error(this.#lastError());
      return new Float32Array(wasm.HEAPU8.slice(logits, logits + size).buffer);
    } finally {
      for (const handle of handles) wasm._OrtReleaseTensor(handle);
      for (const block of blocks) wasm._free(block);
    }
  }

  /** Write the names of inputs and outputs, and the handles that stay the same. @param {string[]} names */
  #bind(names) {
    const inputs = [...names, ...this.#graph].map((name) => this.#string(name));
    const outputs = ["logits", ...this.#graph.map(presentOf)].map((name) => this.#string(name));
    return {
      names,
      inputNames: this.#pointers(inputs),
      inputs: this.#pointers([...names.map(() => 0), ...this.#handles]),
      outputNames: this.#pointers(outputs),
      outputs: this.#pointers([0, ...this.#handles]),
    };
  }

  /** @param {string} type @param {number} at @param {number} size in bytes @param {number[]} shape */
  #tensor(type, at, size, shape) {
    const wasm = this.#wasm;
    const stack = wasm.stackSave();
    const dims = wasm.stackAlloc(POINTER * shape.length);
    shape.forEach((dim, i) => wasm.setValue(dims + POINTER * i, dim, "*"));
    const onCpu = 1; // DataLocation
    const handle = wasm._OrtCreateTensor(TYPES[type][0], at, size, dims, shape.length, onCpu);
    wasm.stackRestore(stack);
    if (!handle) throw new Error(this.#lastError());
    return handle;
  }

  /** @param {number} size */
  #allocate(size) {
    const at = this.#wasm._malloc(size);
    if (!at) throw new RangeError(`no memory for ${size} bytes`);
    return at;
  }

  /** @param {number[]} values */
  #pointers(values) {
    const at = this.#allocate(POINTER * values.length);
    this.#blocks.push(at);
    values.forEach((value, i) => this.#wasm.setValue(at + POINTER * i, value, "*"));
    return at;
  }

  /** @param {string} text */
  #string(text) {
    const size = this.#wasm.lengthBytesUTF8(text) + 1;
    const at = this.#allocate(size);
    this.#blocks.push(at);
    this.#wasm.stringToUTF8(text, at, size);
    return at;
  }

  #lastError() {
    const wasm = this.#wasm;
    const stack = wasm.stackSave();
    const at = wasm.stackAlloc(2 * POINTER);
    wasm._OrtGetLastError(at, at + POINTER);
    const message = wasm.UTF8ToString(wasm.getValue(at + POINTER, "*"));
    wasm.stackRestore(stack);
    return message;
  }
}
