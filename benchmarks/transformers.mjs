/** A graph of Optimum's in transformers.js, as `browser.mjs` measures it. */

import { AutoModelForCausalLM, DynamicCache, env, Tensor } from "./transformers/transformers.min.js";

/** @param {number} threads */
export async function open(threads) {
  const site = new URL("./", import.meta.url);
  Object.assign(env, { allowRemoteModels: false, allowLocalModels: true, localModelPath: site.href });
  Object.assign(env.backends.onnx.wasm, { wasmPaths: new URL("transformers/", site).href, numThreads: threads });
  const model = await AutoModelForCausalLM.from_pretrained("peer", {
    device: "wasm",
    dtype: "fp32", // the file's name, model.onnx: its weights have a precision of their own
    use_external_data_format: true,
  });
  let past = null;
  let length = 0;
  const forward = async (ids) => {
    length += ids.length;
    const input_ids = new Tensor("int64", BigInt64Array.from(ids, BigInt), [1, ids.length]);
    const attention_mask = new Tensor("int64", new BigInt64Array(length).fill(1n), [1, length]);
    const outputs = await model({ input_ids, attention_mask, past_key_values: past });
    const present = Object.entries(outputs).filter(([name]) => name.startsWith("present"));
    const entries = Object.fromEntries(present.map(([name, tensor]) => [name.replace("present", "past_key_values"), tensor]));
    if (past) past.update(entries);
    else past = new DynamicCache(entries);
  };
  return {
    pieces: model.config.vocab_size,
    memoryBytes: () => 0,
    prefill(ids) {
      [past, length] = [null, 0];
      return forward(ids);
    },
    step: (id) => forward([id]),
  };
}
