/** Ids to the visible text of an answer, piece by piece (`runtime/text/stream.py`). */

import { ByteDetokenizer, Detokenizer } from "./detokenizer.mjs";

/** @import { Tokenizer } from "./types.d.ts" */

const END = "\n"; // one newline at the end of an answer belongs to the format

/**
 * The pieces from `push` and `finish` join to the text of all ids, with the template's newline
 * spelling replaced, ended before a stop string, and without one final newline. Text that may
 * still change is held back.
 */
export class TextStream {
  #detokenizer;
  #newline;
  #stop;
  #raw = ""; // decoded, newline spelling not yet replaced
  #text = ""; // newlines restored, not yet returned
  stopped = false;

  /** @param {Tokenizer} tokenizer @param {string} newline @param {string[]} stop */
  constructor(tokenizer, newline, stop) {
    this.#detokenizer = tokenizer.byteLevel ? new ByteDetokenizer(tokenizer) : new Detokenizer(tokenizer);
    this.#newline = newline;
    this.#stop = stop;
  }

  /** Start after `ids`, whose text the reader has. @param {number[]} ids */
  continueAfter(ids) {
    for (const id of ids) this.#detokenizer.push(id);
    this.#detokenizer.pause();
  }

  /** The text that is final after `id`. @param {number} id */
  push(id) {
    this.#advance(this.#detokenizer.push(id), false);
    if (this.#cutAtStop()) return this.#emit(this.#text);
    return this.#emit(this.#text.slice(0, this.#text.length - partialSuffix(this.#text, this.#stop)));
  }

  /** The rest of a truncated text, without part of a newline's spelling. */
  pause() {
    this.#advance(this.#detokenizer.pause(), false);
    return this.#emit(this.#text);
  }

  /** The rest of a whole text. */
  finish() {
    this.#advance(this.#detokenizer.finish(), true);
    this.#cutAtStop();
    return this.pause();
  }

  /** @param {string} text @param {boolean} final */
  #advance(text, final) {
    this.#raw += text;
    if (this.#newline) this.#raw = this.#raw.replaceAll(this.#newline, "\n");
    const pending = final || !this.#newline ? 0 : partialSuffix(this.#raw, [this.#newline]);
    this.#text += this.#raw.slice(0, this.#raw.length - pending);
    this.#raw = this.#raw.slice(this.#raw.length - pending);
  }

  /** End the text before the stop string that ends first (of two, the longer one). */
  #cutAtStop() {
    const found = this.#stop
      .filter((stop) => this.#text.includes(stop))
      .map((stop) => ({ start: this.#text.indexOf(stop), end: this.#text.indexOf(stop) + stop.length }))
      .sort((a, b) => a.end - b.end || a.start - b.start);
    if (found.length) {
      this.#text = this.#text.slice(0, found[0].start);
      this.stopped = true;
    }
    return this.stopped;
  }

  /** @param {string} certain the beginning of the text that cannot change */
  #emit(certain) {
    const emitted = certain.endsWith(END) ? certain.slice(0, -END.length) : certain;
    this.#text = this.#text.slice(emitted.length);
    return emitted;
  }
}

/** Length of the longest suffix of `text` that is a proper prefix of one of `wanted`. @param {string} text @param {string[]} wanted */
export function partialSuffix(text, wanted) {
  const longest = Math.max(0, ...wanted.map(({ length }) => length - 1));
  for (let length = Math.min(longest, text.length); length > 0; length--) {
    const suffix = text.slice(text.length - length);
    if (wanted.some((one) => one.length > length && one.startsWith(suffix))) return length;
  }
  return 0;
}
