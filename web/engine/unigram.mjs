/** Unigram models of a tokenizer.json: the pieces of the library `tokenizers`. */

import { Trie } from "./trie.mjs";

const UTF_8 = new TextEncoder();
const UNKNOWN_PENALTY = 10;

export class Unigram {
  #scores;
  #unknownScore;
  #trie = new Trie();

  /** @param {[string, number][]} vocab spellings and logarithms of probabilities */
  constructor(vocab) {
    this.#scores = vocab.map(([, score]) => score);
    this.#unknownScore = this.#scores.reduce((a, b) => Math.min(a, b), Infinity) - UNKNOWN_PENALTY;
    vocab.forEach(([spelling], id) => this.#trie.add(UTF_8.encode(spelling), id));
  }

  /**
   * The best segmentation (Viterbi): ids, and the bytes of runs that no piece spells. Of equal ones
   * the first that was found stays.
   * @param {string} text
   * @returns {(number | Uint8Array)[]}
   */
  encode(text) {
    const bytes = UTF_8.encode(text);
    const size = bytes.length;
    const best = new Float64Array(size + 1); // by the end of a piece: score, beginning and id
    const begins = new Int32Array(size + 1).fill(-1);
    const ids = new Int32Array(size + 1);
    /** @type {(start: number, end: number, id: number, score: number) => void} */
    const offer = (start, end, id, score) => {
      const sum = score + best[start];
      if (begins[end] >= 0 && sum <= best[end]) return;
      best[end] = sum;
      begins[end] = start;
      ids[end] = id;
    };
    for (let start = 0; start < size; ) {
      const next = start + lengthOf(bytes[start]);
      let single = false; // whether a piece is this character alone
      this.#trie.match(bytes, start, (end, id) => {
        offer(start, end, id, this.#scores[id]);
        single ||= end === next;
      });
      if (!single) offer(start, next, -1, this.#unknownScore);
      start = next;
    }
    /** @type {(number | Uint8Array)[]} */
    const found = [];
    for (let end = size; end > 0; ) {
      const id = ids[end];
      let start = begins[end];
      if (id < 0) while (start > 0 && ids[start] < 0) start = begins[start]; // a run is one
      found.push(id < 0 ? bytes.subarray(start, end) : id);
      end = start;
    }
    return found.reverse();
  }
}

/** Bytes of the character that begins with `byte`. @param {number} byte */
export const lengthOf = (byte) => (byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4);
