/** Byte-level BPE of a tokenizer.json: the ids of the library `tokenizers`. */

import { Merges } from "./merges.mjs";

/** @import { TokenizerJson } from "./types.d.ts" */

const UTF_8 = new TextEncoder();
const MOST_WORDS = 20_000; // whose ids are kept
const GPT_2 = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;

export class ByteLevel {
  byteLevel = true;
  #ids;
  #merges;
  #spellings;
  #whole;
  #words;
  #nfc;
  /** @type {Map<string, number[]>} */
  #known = new Map();

  /** @param {TokenizerJson} described of a form that `issun web` accepts (web/tokenizers.py) */
  constructor({ model, normalizer, pre_tokenizer: pre, added_tokens: added }) {
    this.#ids = new Map(Object.entries(model.vocab));
    this.#merges = new Merges(this.#ids, model.merges ?? []);
    this.#spellings = new Map([...this.#ids].map(([text, id]) => [id, text]));
    for (const { id, content } of added) this.#spellings.set(id, content);
    this.#whole = model.ignore_merges === true;
    this.#words = new RegExp(translate(pre?.pretokenizers?.[0].pattern.Regex ?? GPT_2), "gu");
    this.#nfc = normalizer !== null;
    this.pieces = this.#ids.size;
  }

  /** @param {string} text */
  normalize(text) {
    return this.#nfc ? text.normalize("NFC") : text;
  }

  /** The ids of a text without added tokens. @param {string} text */
  encode(text) {
    return wordsOf(text, this.#words).flatMap((word) => this.#idsOf(word));
  }

  /** The bytes of a token; none for a row of logits that has no token. @param {number} id */
  bytesOf(id) {
    const spelling = this.#spellings.get(id) ?? "";
    const bytes = Array.from(spelling, (letter) => BYTES.get(letter));
    // An added token is spelled literally.
    return bytes.includes(undefined) ? UTF_8.encode(spelling) : Uint8Array.from(/** @type {number[]} */ (bytes));
  }

  /** The text of tokens, some of which have another spelling. @param {number[]} ids @param {(id: number) => string} nameOf */
  decode(ids, nameOf) {
    const bytes = ids.flatMap((id) => [...(nameOf(id) ? UTF_8.encode(nameOf(id)) : this.bytesOf(id))]);
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes));
  }

  isByte() {
    return false; // tokens need not be whole characters
  }

  /** @param {string} word */
  #idsOf(word) {
    let ids = this.#known.get(word);
    if (!ids) {
      const letters = Array.from(UTF_8.encode(word), (byte) => LETTERS[byte]);
      const whole = this.#whole ? this.#ids.get(letters.join("")) : undefined;
      ids = whole === undefined ? this.#merges.apply(letters.map((letter) => this.#ids.get(letter) ?? -1)) : [whole];
      if (this.#known.size >= MOST_WORDS) this.#known.clear();
      this.#known.set(word, ids);
    }
    return ids;
  }
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
