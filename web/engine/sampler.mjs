/** Logits to the next id, with the filters, their order and the defaults of Python's `Sampler`. */

import {
  addBias,
  argmax,
  ban,
  banRepeatedNgrams,
  banSequences,
  choose,
  draw,
  keepMinP,
  keepTopP,
  keepTypical,
  penalizeAnswer,
  penalizeRepetition,
} from "./filters.mjs";

/** @import { Manifest, Params, Tokens } from "./types.d.ts" */

/** @type {Params} Those of `SamplingParams` in runtime/decoding/sampling.py. */
export const DEFAULTS = {
  temperature: 0.7,
  top_k: 0,
  top_p: 1,
  min_p: 0,
  typical_p: 1,
  repetition_penalty: 1,
  presence_penalty: 0,
  frequency_penalty: 0,
  no_repeat_ngram_size: 0,
  logit_bias: {},
  banned_ids: null,
  banned_first_ids: [],
  banned_sequences: [],
  min_length: 0,
  min_new_tokens: 0,
  max_new_tokens: 100,
  stop: [],
  seed: null,
};

/** All ids that end an answer. @param {Tokens} tokens */
export const endsOf = ({ eos, ends = [] }) => new Set(eos === null ? ends : [eos, ...ends]);

export class Sampler {
  #params;
  #ends;
  #banned;
  #random;

  /** @param {Params} params @param {Manifest} manifest @param {Set<number>} [added] ids of added tokens */
  constructor(params, { tokens, architecture }, added = new Set()) {
    this.#params = params;
    this.#ends = endsOf(tokens);
    const unknown = tokens.unk === null ? [] : [tokens.unk];
    const rows = Array.from({ length: architecture.vocab_size - tokens.pieces }, (_, i) => tokens.pieces + i);
    const withoutToken = rows.filter((row) => !this.#ends.has(row) && !added.has(row));
    this.#banned = [...(params.banned_ids ?? unknown), ...withoutToken];
    this.#random = generator(params.seed ?? crypto.getRandomValues(new Uint32Array(1))[0]);
  }

  /**
   * The next id after `prompt` and `answer`.
   * @param {Float32Array} logits
   * @param {number[]} prompt
   * @param {number[]} answer
   */
  sample(logits, prompt, answer) {
    const processed = this.process(logits, prompt, answer);
    const best = argmax(processed);
    if (!Number.isFinite(processed[best])) throw new RangeError("no token can be sampled");
    return this.#params.temperature === 0 ? best : draw(this.warp(processed), this.#random());
  }

  /** The logits after bans, bias and penalties. @param {Float32Array} given @param {number[]} prompt @param {number[]} answer */
  process(given, prompt, answer) {
    const params = this.#params;
    const logits = given.slice();
    const seen = [...prompt, ...answer];
    ban(logits, this.#banned);
    if (answer.length < params.min_new_tokens || seen.length < params.min_length) ban(logits, this.#ends);
    if (!answer.length) ban(logits, params.banned_first_ids);
    banSequences(logits, seen, params.banned_sequences);
    addBias(logits, params.logit_bias);
    if (params.repetition_penalty !== 1) penalizeRepetition(logits, seen, params.repetition_penalty);
    penalizeAnswer(logits, answer, params.presence_penalty, params.frequency_penalty);
    if (params.no_repeat_ngram_size) banRepeatedNgrams(logits, seen, params.no_repeat_ngram_size);
    return logits;
  }

  /** What temperature and filters leave. @param {Float32Array} logits */
  warp(logits) {
    const { temperature, top_k, top_p, min_p, typical_p } = this.#params;
    return keepTypical(keepMinP(keepTopP(choose(logits, top_k, temperature), top_p), min_p), typical_p);
  }
}

/**
 * Random numbers from 0 to 1: mulberry32.
 * Source: https://gist.github.com/tommyettinger/46a874533244883189143505d203312c
 * @param {number} seed
 */
export function generator(seed) {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
