/** The tokenizer of a bundle: SentencePiece, and control tokens that only templates can spell. */

import { SentencePiece } from "./spiece.mjs";

/** @import { Tokens } from "./types.d.ts" */

/** Ids as those of issun's SentencePieceTokenizer in Python (`runtime/text/spiece_tokenizer.py`). */
export class Tokenizer {
  #pieces;
  #special;
  #lower;
  #reserved;
  #pattern;

  /** @param {Uint8Array} content of the tokenizer's file @param {Tokens} tokens of the manifest */
  constructor(content, { special, do_lower_case: lower }) {
    this.#pieces = new SentencePiece(content);
    this.#special = new Map(Object.entries(special));
    this.#lower = lower;
    this.#reserved = new Set(Object.values(special).filter((id) => id !== this.#pieces.unk));
    const longest = [...this.#special.keys()].sort((a, b) => b.length - a.length);
    this.#pattern = longest.map((text) => text.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&")).join("|");
  }

  /** `text`, cut at its control tokens, which become ids. @param {string} text */
  split(text) {
    if (!this.#pattern) return text ? [text] : [];
    const cuts = text.split(new RegExp(`(${this.#pattern})`));
    return cuts.filter(Boolean).map((cut) => this.#special.get(cut) ?? cut);
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

  /** For files whose control tokens are normal pieces: cut the text within each. @param {string} text */
  #encodeWithoutSpecial(text) {
    const parts = [];
    let start = 0;
    for (const { index } of text.matchAll(new RegExp(this.#pattern, "g"))) {
      const end = index + String.fromCodePoint(text.codePointAt(index) ?? 0).length;
      parts.push(text.slice(start, end));
      start = end;
    }
    parts.push(text.slice(start));
    const ids = parts.flatMap((part) => this.#pieces.encode(part));
    return ids.map((id) => (this.#reserved.has(id) ? this.#pieces.unk : id));
  }
}
