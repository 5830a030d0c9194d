/** Models of a tokenizer.json that spell spaces as "▁" and unknown characters as bytes. */

import { Merges } from "./merges.mjs";
import { Unigram } from "./unigram.mjs";

/** @import { TokenizerJson } from "./types.d.ts" */

const UTF_8 = new TextEncoder();
const REPLACEMENT = "\ufffd";

export class ByteFallback {
  byteLevel = false;
  #ids;
  #spellings;
  #first;
  /** @type {Map<number, number>} the byte of each piece that is one */
  #bytes = new Map();
  #encode;

  /** @param {TokenizerJson} described of a form that `issun web` accepts (web/tokenizers.py) */
  constructor({ model, pre_tokenizer: pre, added_tokens: added }) {
    const pieces = Array.isArray(model.vocab)
      ? model.vocab.map(([text], id) => /** @type {[string, number]} */ ([text, id]))
      : Object.entries(model.vocab);
    this.#ids = new Map(pieces);
    this.pieces = pieces.length;
    this.#spellings = new Map(pieces.map(([text, id]) => [id, text]));
    for (const { id, content } of added) this.#spellings.set(id, content);
    for (let byte = 0; byte < 256; byte++) this.#bytes.set(this.#idOf(byte), byte);
    this.#first = pre !== null; // whether only the beginning of a text gets a space
    this.#encode = Array.isArray(model.vocab) ? this.#unigram(model.vocab) : this.#merging(model.merges ?? []);
  }

  /** As the file spells an added token that is searched in normalized text. @param {string} text */
  normalize(text) {
    return text;
  }

  /** The ids of a text without added tokens. @param {string} text @param {boolean} begins whether it begins the prompt */
  encode(text, begins) {
    const spelled = text.replaceAll(" ", "▁");
    const prefixed = this.#first ? begins && !spelled.startsWith("▁") : true;
    return this.#encode(prefixed ? `▁${spelled}` : spelled);
  }

  /** The text of tokens, some of which have another spelling. @param {number[]} ids @param {(id: number) => string} nameOf */
  decode(ids, nameOf) {
    let text = "";
    /** @type {number[]} */
    let run = []; // of bytes: invalid UTF-8 makes each of them U+FFFD
    const flush = () => {
      text += run.length ? decoded(run) : "";
      run = [];
    };
    for (const id of ids) {
      const byte = this.#bytes.get(id);
      if (byte !== undefined) {
        run.push(byte);
        continue;
      }
      flush();
      text += nameOf(id) || (this.#spellings.get(id) ?? "").replaceAll("▁", " ");
    }
    flush();
    return text.startsWith(" ") ? text.slice(1) : text;
  }

  /** Whether a token is one byte of a character. @param {number} id */
  isByte(id) {
    return this.#bytes.has(id);
  }

  /** @param {[string, number][]} vocab */
  #unigram(vocab) {
    const model = new Unigram(vocab);
    return (/** @type {string} */ text) =>
      model.encode(text).flatMap((part) => (typeof part === "number" ? [part] : this.#spelled(part)));
  }

  /** @param {[string, string][]} merges */
  #merging(merges) {
    const model = new Merges(this.#ids, merges);
    return (/** @type {string} */ text) =>
      model.apply([...text].flatMap((letter) => this.#ids.get(letter) ?? this.#spelled(UTF_8.encode(letter))));
  }

  /** @param {Uint8Array} bytes */
  #spelled(bytes) {
    return Array.from(bytes, (byte) => this.#idOf(byte));
  }

  /** The id of a piece that is one byte. @param {number} byte */
  #idOf(byte) {
    const spelling = `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
    return /** @type {number} */ (this.#ids.get(spelling));
  }
}

/** @param {number[]} bytes */
function decoded(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(bytes));
  } catch {
    return REPLACEMENT.repeat(bytes.length);
  }
}
