/** Ids to texts one by one, whose concatenation is the text of all ids. */

/** @import { Tokenizer } from "./types.d.ts" */

/** For tokens that are whole characters. */
export class Detokenizer {
  #tokenizer;
  /** @type {number[]} ids whose text may still change, after one decoded token */
  #window = [];
  #emitted = 0; // characters of the window's text that were returned

  /** @param {Tokenizer} tokenizer */
  constructor(tokenizer) {
    this.#tokenizer = tokenizer;
  }

  /** The text that `id` adds; the one before it decides about a space at its beginning. @param {number} id */
  push(id) {
    this.#window.push(id);
    const text = this.#tokenizer.decode(this.#window);
    const alone = this.#tokenizer.decode([id]);
    const added = text.slice(this.#emitted);
    if (alone === "") {
      this.#emitted = text.length;
    } else {
      this.#window = [id];
      this.#emitted = alone.length;
    }
    return added;
  }

  finish() {
    return "";
  }
}

/** For tokens of bytes, which may begin and end within a character: such bytes are held back. */
export class ByteDetokenizer {
  #tokenizer;
  #decoder = new TextDecoder("utf-8", { ignoreBOM: true });

  /** @param {Tokenizer} tokenizer */
  constructor(tokenizer) {
    this.#tokenizer = tokenizer;
  }

  /** The text that `id` completes. @param {number} id */
  push(id) {
    return this.#decoder.decode(this.#tokenizer.textOf(id), { stream: true });
  }

  /** The text of trailing bytes that do not form a character. */
  finish() {
    return this.#decoder.decode();
  }
}
