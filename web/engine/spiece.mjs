/** SentencePiece's unigram models: the ids and texts of the C++ library. */

import { CONTROL, NORMAL, readSentencePiece, UNKNOWN, USER_DEFINED } from "./proto.mjs";
import { CharsMap, Trie } from "./trie.mjs";

const UTF_8 = new TextEncoder(); // a lone surrogate becomes U+FFFD
const SPACE = UTF_8.encode("▁");
const UNKNOWN_PENALTY = 10;
const FLT_MIN = 1.1754943508222875e-38;

export class SentencePiece {
  #pieces;
  #spellings;
  #normalizer;
  #trie = new Trie();
  #userDefined = new Trie();
  #unknownScore;
  #maxScore;

  /** @param {Uint8Array} content of a spiece.model */
  constructor(content) {
    const { pieces, normalizer } = readSentencePiece(content);
    const text = new TextDecoder("utf-8", { ignoreBOM: true });
    this.#pieces = pieces;
    this.#spellings = pieces.map(({ bytes }) => text.decode(bytes));
    this.#normalizer = { ...normalizer, map: normalizer.charsMap && new CharsMap(normalizer.charsMap) };
    this.unk = pieces.findIndex(({ type }) => type === UNKNOWN);
    const scores = pieces.filter(({ type }) => type === NORMAL).map(({ score }) => score);
    this.#unknownScore = Math.fround(scores.reduce((a, b) => Math.min(a, b)) - UNKNOWN_PENALTY);
    // As in C++, where the search for the maximum begins at FLT_MIN, which is above every score.
    this.#maxScore = scores.reduce((a, b) => Math.max(a, b), FLT_MIN);
    pieces.forEach(({ bytes, type }, id) => {
      if (type === NORMAL || type === USER_DEFINED) this.#trie.add(bytes, id);
      if (type === USER_DEFINED) this.#userDefined.add(bytes, id);
    });
  }

  /** Whether `id` has no text. @param {number} id */
  isTextless(id) {
    return [CONTROL, UNKNOWN].includes(this.#pieces[id].type);
  }

  /**
   * The ids of the best segmentation (Viterbi). Of equal ones the first that was found stays, and
   * sums are float32, so that ties are those of C++.
   * @param {string} text
   */
  encode(text) {
    const bytes = this.#normalize(UTF_8.encode(text));
    const size = bytes.length;
    const best = new Float32Array(size + 1); // by the end of a piece: score, beginning and id
    const begins = new Int32Array(size + 1).fill(-1);
    const ids = new Int32Array(size + 1);
    /** @type {(start: number, end: number, id: number, score: number) => void} */
    const offer = (start, end, id, score) => {
      const sum = Math.fround(score + best[start]);
      if (begins[end] >= 0 && sum <= best[end]) return;
      best[end] = sum;
      begins[end] = start;
      ids[end] = id;
    };
    for (let start = 0; start < size; ) {
      const next = Math.min(start + lengthOf(bytes[start]), size);
      let single = false; // whether a piece is this character alone
      this.#trie.match(bytes, start, (end, id) => {
        offer(start, end, id, this.#scoreOf(id, end - start));
        single ||= end === next;
      });
      if (!single) offer(start, next, this.unk, this.#unknownScore);
      start = next;
    }
    const found = [];
    for (let end = size; end > 0; end = begins[end]) {
      const again = ids[end] === this.unk && found.at(-1) === this.unk; // a run of unknowns is one
      if (!again) found.push(ids[end]);
    }
    return found.reverse();
  }

  /** The text of pieces; spaces at its beginning are those that `encode` added. @param {number[]} ids */
  decode(ids) {
    const { dummyPrefix, trim } = this.#normalizer;
    let text = "";
    let strip = dummyPrefix || trim;
    for (const id of ids) {
      if (this.isTextless(id)) continue;
      const spelling = this.#spellings[id];
      const first = strip && spelling.startsWith("▁");
      text += (first ? spelling.slice(1) : spelling).replaceAll("▁", " ");
      strip &&= text === "" && (trim || !first);
    }
    return text;
  }

  /** @param {number} id @param {number} length in bytes */
  #scoreOf(id, length) {
    const { type, score } = this.#pieces[id];
    return type === USER_DEFINED ? Math.fround(Math.fround(length * this.#maxScore) - 0.1) : score;
  }

  /** As Normalizer::Normalize of normalizer.cc. @param {Uint8Array} bytes */
  #normalize(bytes) {
    const { dummyPrefix, trim } = this.#normalizer;
    let at = 0;
    while (trim && at < bytes.length) {
      const [piece, end] = this.#prefix(bytes, at);
      if (piece.length !== 1 || piece[0] !== 32) break;
      at = end;
    }
    if (at === bytes.length) return new Uint8Array();
    /** @type {number[]} */
    const out = dummyPrefix ? [...SPACE] : [];
    let afterSpace = trim;
    while (at < bytes.length) {
      let [piece, end] = this.#prefix(bytes, at);
      while (afterSpace && piece[0] === 32) piece = piece.subarray(1);
      for (const byte of piece) byte === 32 ? out.push(...SPACE) : out.push(byte);
      if (piece.length) afterSpace = trim && piece.at(-1) === 32;
      at = end;
    }
    while (trim && endsWithSpace(out)) out.length -= SPACE.length;
    return Uint8Array.from(out);
  }

  /**
   * What the text at `start` begins with, normalized, and where that ends.
   * @param {Uint8Array} bytes
   * @param {number} start
   * @returns {[Uint8Array, number]}
   */
  #prefix(bytes, start) {
    let own = 0;
    this.#userDefined.match(bytes, start, (end) => (own = end));
    if (own) return [bytes.subarray(start, own), own];
    const found = this.#normalizer.map?.longest(bytes, start);
    if (found) return found;
    const end = start + lengthOf(bytes[start]);
    return [bytes.subarray(start, end), end];
  }
}

/** Bytes of the character that begins with `byte`. @param {number} byte */
const lengthOf = (byte) => (byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4);

/** @param {number[]} bytes */
const endsWithSpace = (bytes) => SPACE.every((byte, i) => bytes[bytes.length - SPACE.length + i] === byte);
