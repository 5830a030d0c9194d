/** onnxruntime-web's WebAssembly module, kept for `heap_cache.mjs`. */

// @ts-ignore - a file of onnxruntime-web, which `issun web` puts there
import factory from "../ort/ort-wasm-simd-threaded.mjs";

/** @param {unknown} options */
export default async (options) => {
  const wasm = await factory(options);
  Object.assign(globalThis, { issunWasm: wasm });
  return wasm;
};
