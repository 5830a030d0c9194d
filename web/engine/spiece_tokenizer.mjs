/** SentencePiece models, with control tokens that only templates can spell. */

import { ControlTokens } from "./control.mjs";
import { SentencePiece } from "./spiece.mjs";

/** @import { Tokenizer, Tokens } from "./types.d.ts" */

/** Ids as those of issun's SentencePieceTokenizer in Python (`runtime/text/spiece_tokenizer.py`). */
/** @implements {Tokenizer} */
export class SentencePieceTokenizer {
  byteLevel = false;
  wholeRuns = false;
  addedIds = new Set(); // `issun web` refuses such tokens
  #pieces;
  #control;
  #lower;
  #reserved;

  /** @param {Uint8Array} content of the tokenizer's file @param {Tokens} tokens of the manifest */
  constructor(content, { special, do_lower_case: lower }) {
    this.#pieces = new SentencePiece(content);
    this.#control = new ControlTokens(special);
    this.#lower = lower;
    this.#reserved = new Set(Object.values(special).filter((id) => id !== this.#pieces.unk));
  }

  /** `text`, cut at its control tokens, which become ids. @param {string} text */
  split(text) {
    return this.#control.split(text);
  }

  /** The ids of parts from `split`, whose texts never become control tokens. @param {(string | number)[]} parts */
  encodeParts(parts) {
    return parts.flatMap((part) => (typeof part === "number" ? [part] : this.encode(part)));
  }

  /** The ids of a text. @param {string} text */
  encode(text) {
    // Character by character, so that "Σ" never becomes a final sigma.
    const read = this.#lower ? Array.from(text, (character) => character.toLowerCase()).join("") : text;
    const ids = this.#pieces.encode(read);
    return ids.some((id) => this.#reserved.has(id)) ? this.#encodeWithoutSpecial(read) : ids;
  }

  /** The text of ids; control tokens and `<unk>` have none. @param {number[]} ids */
  decode(ids) {
    return this.#pieces.decode(ids.filter((id) => !this.#reserved.has(id)));
  }

  /** The spelling of a control token. @param {number} id */
  nameOf(id) {
    return this.#control.nameOf(id);
  }

  isByte() {
    return false; // `issun web` refuses byte fallback
  }

  textOf() {
    return new Uint8Array(); // only byte-level tokens are decoded one by one
  }

  /** For files whose control tokens are normal pieces: cut the text within each. @param {string} text */
  #encodeWithoutSpecial(text) {
    const parts = [];
    let start = 0;
    for (const { index } of this.#control.findAll(text)) {
      const end = index + String.fromCodePoint(text.codePointAt(index) ?? 0).length;
      parts.push(text.slice(start, end));
      start = end;
    }
    parts.push(text.slice(start));
    const ids = parts.flatMap((part) => this.#pieces.encode(part));
    return ids.map((id) => (this.#reserved.has(id) ? this.#pieces.unk : id));
  }
}
