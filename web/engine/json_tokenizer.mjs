/** Byte-level tokenizers of a tokenizer.json, with control tokens that only templates can spell. */

import { ByteLevelBPE } from "./bpe.mjs";
import { ControlTokens } from "./control.mjs";

/** @import { Tokenizer, Tokens } from "./types.d.ts" */

const HIDDEN = "\ufdd0\ufdd1"; // precedes the spelling of a control token in a bundle's file
const UTF_8 = new TextEncoder();
const EMPTY = new Uint8Array();

/**
 * Ids as those of issun's JsonTokenizer in Python (`runtime/text/json_tokenizer.py`).
 * @implements {Tokenizer}
 */
export class JsonTokenizer {
  byteLevel = true;
  #bpe;
  #control;
  #hidden;
  #silent;

  /** @param {Uint8Array} content of a bundle's tokenizer.json @param {Tokens} tokens */
  constructor(content, { special, added = {} }) {
    const described = JSON.parse(new TextDecoder().decode(content));
    this.#control = new ControlTokens(special);
    this.#hidden = Object.keys(special).map((name) => HIDDEN + name);
    this.#bpe = new ByteLevelBPE(described, new Set(this.#hidden));
    this.addedIds = this.#bpe.addedIds;
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
    return whole.flatMap((part) => {
      if (typeof part === "number") return [part];
      const text = part.toWellFormed();
      return this.#bpe.encode(forged ? text.replaceAll(HIDDEN[0], "\ufffd") : text);
    });
  }

  /** The ids of a text. @param {string} text */
  encode(text) {
    return this.encodeParts([text]);
  }

  /** The text of ids; special tokens have none. @param {number[]} ids */
  decode(ids) {
    const bytes = ids.flatMap((id) => [...this.textOf(id)]);
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes));
  }

  /** The bytes that `id` adds to a text. @param {number} id */
  textOf(id) {
    if (this.#silent.has(id)) return EMPTY;
    const name = this.#control.nameOf(id);
    return name ? UTF_8.encode(name) : this.#bpe.bytesOf(id);
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
