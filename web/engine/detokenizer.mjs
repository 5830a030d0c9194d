/** Ids to texts one by one, whose concatenation is the text of all ids. */

/** @import { Tokenizer } from "./types.d.ts" */

const REPLACEMENT = /\ufffd+$/;
const UTF_8 = 4; // bytes of a character at most
const MOST_HELD = 128; // bytes of a run that are held back until it ends

/** For tokens that are whole characters, or one byte each: incomplete characters are held back. */
export class Detokenizer {
  #tokenizer;
  /** @type {number[]} ids whose text may still change, after one decoded token */
  #window = [];
  #emitted = 0; // characters of the window's text that were returned

  /** @param {Tokenizer} tokenizer */
  constructor(tokenizer) {
    this.#tokenizer = tokenizer;
  }

  /** The text that `id` completes. @param {number} id */
  push(id) {
    this.#window.push(id);
    const alone = this.#tokenizer.decode([id]);
    if (alone === "" || this.#tokenizer.isByte(id)) {
      // A byte that is yet to come may make the whole run invalid, but a run may be long.
      const held = this.#tokenizer.wholeRuns && this.#window.length <= MOST_HELD;
      return held ? "" : this.pause();
    }
    const added = this.#tokenizer.decode(this.#window).slice(this.#emitted);
    // Keep the last piece: the space at the beginning of a first piece only is stripped.
    this.#window = [id];
    this.#emitted = alone.length;
    return added;
  }

  /** The complete characters that were held back; those that follow may still come. */
  pause() {
    const lengths = Array.from({ length: Math.min(this.#window.length, UTF_8) }, (_, missing) => this.#window.length - missing);
    const texts = lengths.map((length) => this.#tokenizer.decode(this.#window.slice(0, length)).replace(REPLACEMENT, ""));
    return this.#emit(texts.reduce((one, other) => (other.length > one.length ? other : one), ""));
  }

  /** The text of trailing bytes that do not form a character. */
  finish() {
    return this.#emit(this.#tokenizer.decode(this.#window));
  }

  /** @param {string} text of the window */
  #emit(text) {
    const added = text.slice(this.#emitted);
    this.#emitted = Math.max(this.#emitted, text.length);
    return added;
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

  pause() {
    return ""; // complete characters are not held back
  }

  /** The text of trailing bytes that do not form a character. */
  finish() {
    return this.#decoder.decode();
  }
}
