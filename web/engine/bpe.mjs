/** Byte-level BPE of a tokenizer.json: the ids of the library `tokenizers`. */

import { anyOf } from "./control.mjs";

/** @typedef {{ id: number, content: string, normalized: boolean }} AddedToken */
/** @typedef {{ model: { vocab: Record<string, number>, merges: [string, string][], ignore_merges?: boolean }, normalizer: object | null, pre_tokenizer: { pretokenizers?: { pattern: { Regex: string } }[] }, added_tokens: AddedToken[] }} Described */
/** @typedef {{ text: string } | { id: number }} Part */

const UTF_8 = new TextEncoder();
const MOST_WORDS = 20_000; // whose ids are kept
const GPT_2 = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;

export class ByteLevelBPE {
  #ids;
  #spellings;
  #ranks;
  #whole;
  #words;
  #normalize;
  #added;
  /** @type {Map<string, number[]>} */
  #known = new Map();

  /**
   * @param {Described} described the file, of a form that `issun web` accepts (web/tokenizers.py)
   * @param {Set<string>} hidden added tokens that no text becomes
   */
  constructor({ model, normalizer, pre_tokenizer: pre, added_tokens: added }, hidden) {
    this.#ids = new Map(Object.entries(model.vocab));
    this.#spellings = new Map([...this.#ids].map(([text, id]) => [id, text]));
    this.addedIds = new Set(added.map(({ id }) => id).filter((id) => !this.#spellings.has(id)));
    for (const { id, content } of added) this.#spellings.set(id, content);
    this.#ranks = new Map(model.merges.map((merge, rank) => this.#merge(merge, rank)));
    this.#whole = model.ignore_merges === true;
    this.#words = new RegExp(translate(pre.pretokenizers?.[0].pattern.Regex ?? GPT_2), "gu");
    this.#normalize = (/** @type {string} */ text) => (normalizer ? text.normalize("NFC") : text);
    const texts = added.filter(({ content }) => !hidden.has(content));
    this.#added = [false, true].map((normalized) => this.#finder(texts, normalized));
  }

  /** The ids of a text. @param {string} text */
  encode(text) {
    const [asWritten, asNormalized] = this.#added;
    return cut(text, asWritten).flatMap((outer) => {
      if ("id" in outer) return [outer.id];
      return cut(this.#normalize(outer.text), asNormalized).flatMap((part) =>
        "id" in part ? [part.id] : wordsOf(part.text, this.#words).flatMap((word) => this.#idsOf(word)),
      );
    });
  }

  /** The bytes of a token; none for a row of logits that has no token. @param {number} id */
  bytesOf(id) {
    const spelling = this.#spellings.get(id) ?? "";
    const bytes = Array.from(spelling, (letter) => BYTES.get(letter));
    // An added token is spelled literally.
    return bytes.includes(undefined) ? UTF_8.encode(spelling) : Uint8Array.from(/** @type {number[]} */ (bytes));
  }

  /** @param {[string, string]} merge @param {number} rank @returns {[number, { rank: number, id: number }]} */
  #merge([one, other], rank) {
    const id = /** @type {number} */ (this.#ids.get(one + other));
    return [pair(this.#ids.get(one), this.#ids.get(other)), { rank, id }];
  }

  /** A pattern of the added tokens that are searched before or after normalization, and their ids. @param {AddedToken[]} tokens @param {boolean} normalized */
  #finder(tokens, normalized) {
    const own = tokens.filter((token) => token.normalized === normalized);
    const ids = new Map(own.map(({ content, id }) => [normalized ? this.#normalize(content) : content, id]));
    return { ids, pattern: ids.size ? new RegExp(`(${anyOf([...ids.keys()])})`) : null };
  }

  /** The ids of a word. @param {string} word */
  #idsOf(word) {
    let ids = this.#known.get(word);
    if (!ids) {
      ids = this.#merged(Array.from(UTF_8.encode(word), (byte) => LETTERS[byte]));
      if (this.#known.size >= MOST_WORDS) this.#known.clear();
      this.#known.set(word, ids);
    }
    return ids;
  }

  /**
   * Merge the pair of the lowest rank, the first of equal ones, until there is none.
   * @param {string[]} letters
   */
  #merged(letters) {
    const whole = this.#whole ? this.#ids.get(letters.join("")) : undefined;
    if (whole !== undefined) return [whole];
    const ids = letters.map((letter) => /** @type {number} */ (this.#ids.get(letter)));
    const next = ids.map((_, place) => place + 1); // where the next token begins
    const before = ids.map((_, place) => place - 1);
    /** @param {number} place */
    const mergeAt = (place) => (next[place] < ids.length ? this.#ranks.get(pair(ids[place], ids[next[place]])) : undefined);
    const merges = ids.map((_, place) => mergeAt(place)); // of the token at `place` and the next one
    const ranks = Float64Array.from(merges, (merge) => merge?.rank ?? Infinity);
    /** @param {number} place */
    const update = (place) => {
      merges[place] = mergeAt(place);
      ranks[place] = merges[place]?.rank ?? Infinity;
    };
    for (let place = lowest(ranks); ranks[place] < Infinity; place = lowest(ranks)) {
      ids[place] = /** @type {{ id: number }} */ (merges[place]).id;
      const gone = next[place];
      ranks[gone] = Infinity;
      next[place] = next[gone];
      if (next[gone] < ids.length) before[next[gone]] = place;
      update(place);
      if (before[place] >= 0) update(before[place]);
    }
    const found = [];
    for (let place = 0; place < ids.length; place = next[place]) found.push(ids[place]);
    return found;
  }
}

/** A key for two ids. @param {number | undefined} one @param {number | undefined} other */
const pair = (one = 0, other = 0) => one * 2 ** 24 + other;

/** @param {Float64Array} ranks */
function lowest(ranks) {
  let best = 0;
  for (let place = 1; place < ranks.length; place++) if (ranks[place] < ranks[best]) best = place;
  return best;
}

/** `text`, cut at added tokens. @param {string} text @param {{ ids: Map<string, number>, pattern: RegExp | null }} finder @returns {Part[]} */
function cut(text, { ids, pattern }) {
  if (!pattern) return [{ text }];
  return text.split(pattern).map((piece, place) => (place % 2 ? { id: /** @type {number} */ (ids.get(piece)) } : { text: piece }));
}

/** The matches of `pattern`, and what is between them. @param {string} text @param {RegExp} pattern */
function wordsOf(text, pattern) {
  const words = [];
  let end = 0;
  for (const { 0: word, index } of text.matchAll(pattern)) {
    if (index > end) words.push(text.slice(end, index));
    words.push(word);
    end = index + word.length;
  }
  if (end < text.length) words.push(text.slice(end));
  return words;
}

/**
 * A pattern of Oniguruma for JavaScript, where `\s` are other characters, and `(?i:` is missing in
 * older browsers and in Node.js 20. The long s is the only other character with such a case here.
 * @param {string} pattern
 */
function translate(pattern) {
  return pattern
    .replace(/\(\?i:([^()]*)\)/g, (_, inner) =>
      inner.replace(/[a-z]/g, (/** @type {string} */ c) => `[${c}${c.toUpperCase()}${c === "s" ? "ſ" : ""}]`),
    )
    .replaceAll("\\s", "\\p{White_Space}")
    .replaceAll("\\S", "\\P{White_Space}");
}

/** The letter for each byte: itself where it can be seen, else one from U+0100 on (`bytes_to_unicode` of GPT-2). */
const LETTERS = Array.from({ length: 256 }, (_, byte) => String.fromCharCode(byte));
[...Array(256).keys()]
  .filter((byte) => byte < 33 || (byte > 126 && byte < 161) || byte === 173)
  .forEach((byte, place) => (LETTERS[byte] = String.fromCharCode(256 + place)));
const BYTES = new Map(LETTERS.map((letter, byte) => [letter, byte]));
