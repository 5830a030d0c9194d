/** The tokenizer of a tokenizer.json, with control tokens that only templates can spell. */

import { AddedTokens } from "./added_tokens.mjs";
import { ByteFallback } from "./byte_fallback.mjs";
import { ByteLevel } from "./byte_level.mjs";
import { ControlTokens } from "./control.mjs";

/** @import { Tokenizer, TokenizerJson, Tokens } from "./types.d.ts" */

const HIDDEN = "\ufdd0\ufdd1"; // precedes the spelling of a control token in a bundle's file
const UTF_8 = new TextEncoder();
const EMPTY = new Uint8Array();

/**
 * Ids as those of issun's JsonTokenizer in Python (`runtime/text/json_tokenizer.py`).
 * @implements {Tokenizer}
 */
export class JsonTokenizer {
  wholeRuns = true;
  #model;
  #texts;
  #control;
  #hidden;
  #silent;

  /** @param {Uint8Array} content of a bundle's tokenizer.json @param {Tokens} tokens */
  constructor(content, { special, added = {}, unk }) {
    /** @type {TokenizerJson} */
    const described = JSON.parse(new TextDecoder().decode(content));
    this.#model = described.model.byte_fallback ? new ByteFallback(described) : new ByteLevel(described);
    this.#control = new ControlTokens(special);
    const reserved = Object.keys(special).filter((name) => special[name] !== unk);
    this.#hidden = reserved.map((name) => HIDDEN + name);
    const { added_tokens: all } = described;
    const texts = all.filter((token) => !this.#hidden.includes(token.content));
    this.#texts = new AddedTokens(texts, (text) => this.#model.normalize(text));
    this.addedIds = new Set(all.map(({ id }) => id).filter((id) => id >= this.#model.pieces));
    this.byteLevel = this.#model.byteLevel;
    this.#silent = new Set(Object.entries(special).flatMap(([name, id]) => (!added[name] || added[name].special ? [id] : [])));
  }

  /** `text`, cut at its control tokens, which become ids. @param {string} text */
  split(text) {
    return this.#control.split(text);
  }

  /** The ids of parts from `split`, whose texts never become control tokens. @param {(string | number)[]} parts */
  encodeParts(parts) {
    const whole = joined(parts);
    const forged = whole.some((part) => typeof part === "string" && this.#hidden.some((name) => part.includes(name)));
    return whole.flatMap((part, place) => {
      if (typeof part === "number") return [part];
      const text = forged ? part.replaceAll(HIDDEN[0], "\ufffd") : part;
      return this.#texts.encode(text.toWellFormed(), place === 0, (one, begins) => this.#model.encode(one, begins));
    });
  }

  /** The ids of a text. @param {string} text */
  encode(text) {
    return this.encodeParts([text]);
  }

  /** The text of ids; special tokens have none. @param {number[]} ids */
  decode(ids) {
    const known = ids.filter((id) => !this.#silent.has(id));
    return this.#model.decode(known, (id) => this.nameOf(id));
  }

  /** Whether `id` is one byte of a character. @param {number} id */
  isByte(id) {
    return this.#model.isByte(id);
  }

  /** The bytes that `id` adds to a text, of a byte-level tokenizer. @param {number} id */
  textOf(id) {
    if (this.#silent.has(id) || !(this.#model instanceof ByteLevel)) return EMPTY;
    const name = this.nameOf(id);
    return name ? UTF_8.encode(name) : this.#model.bytesOf(id);
  }

  /** The spelling of a control token. @param {number} id */
  nameOf(id) {
    return this.#control.nameOf(id);
  }
}

/** Parts with adjacent texts joined. @param {(string | number)[]} parts */
function joined(parts) {
  /** @type {(string | number)[]} */
  const found = [];
  for (const part of parts) {
    const last = found.at(-1);
    if (typeof part === "string" && typeof last === "string") found[found.length - 1] = last + part;
    else found.push(part);
  }
  return found;
}
