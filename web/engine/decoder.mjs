/** Ids to logits over a KV cache, for one sequence. */

import { commonPrefix } from "./prompt.mjs";

/** @import { Cache, Feed } from "./types.d.ts" */

export const CHUNK = 128; // of prefill, as in Python

/** Session options that both onnxruntime-web and onnxruntime-node take; Python has the same. */
export const OPTIONS = {
  enableMemPattern: false, // sequence lengths vary
  logSeverityLevel: 3,
  extra: { optimization: { disable_specified_optimizers: "SkipLayerNormFusion;LayerNormFusion" } },
};

export class Decoder {
  #cache;
  /** @type {number[]} the ids whose keys and values the cache holds */
  #ids = [];

  /** @param {Cache} cache */
  constructor(cache) {
    this.#cache = cache;
  }

  /** How many of `ids` the cache holds as its beginning, the last of them never. @param {number[]} ids */
  held(ids) {
    return Math.min(commonPrefix(this.#ids, ids), ids.length - 1);
  }

  /**
   * Make the cache hold `ids`, and return the logits of the last one. `next(read)` is called before
   * each chunk, and after the last, with the number of ids that are read; where it returns false
   * the result is null.
   * @param {number[]} ids
   * @param {(read: number) => Promise<boolean>} next
   */
  async prefill(ids, next) {
    let read = this.held(ids);
    this.#ids = ids.slice(0, read);
    /** @type {Float32Array | null} */
    let logits = null;
    for (const chunk of split(ids.slice(read))) {
      if (!(await next(read))) return null;
      logits = await this.step(chunk);
      read += chunk.length;
    }
    return (await next(read)) ? logits : null;
  }

  /** Append ids, and return the logits of the last one. @param {number[]} ids */
  async step(ids) {
    const past = this.#ids.length;
    const total = past + ids.length;
    /** @type {Record<string, Feed>} */
    const feeds = {
      input_ids: ["int64", BigInt64Array.from(ids, BigInt), [1, ids.length]],
      position_ids: ["int64", BigInt64Array.from(ids, (_, i) => BigInt(past + i)), [1, ids.length]],
      seqlens_k: ["int32", Int32Array.of(total - 1), [1]],
      total_sequence_length: ["int32", Int32Array.of(total), []],
      // Always one: ReduceMax over no rows has the wrong shape in onnxruntime-web 1.30.
      logit_rows: ["int64", BigInt64Array.of(BigInt(ids.length - 1)), [1]],
    };
    const logits = await this.#cache.run(feeds, past);
    this.#ids.push(...ids);
    return logits;
  }
}

/**
 * Chunks of a prompt; only a single id becomes a chunk of one row, for which attention has a kernel
 * that rounds differently.
 * @param {number[]} ids
 */
export function* split(ids) {
  for (let start = 0; start < ids.length; ) {
    const left = ids.length - start;
    const size = left === CHUNK + 1 ? CHUNK - 1 : Math.min(CHUNK, left);
    yield ids.slice(start, start + size);
    start += size;
  }
}
