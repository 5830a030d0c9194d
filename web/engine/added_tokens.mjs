/** Added tokens of a tokenizer.json, which are split off before its model sees a text. */

import { anyOf } from "./control.mjs";

/** @import { AddedToken } from "./types.d.ts" */
/** @typedef {{ ids: Map<string, number>, pattern: RegExp | null }} Finder */

export class AddedTokens {
  #asWritten;
  #asNormalized;
  #normalize;

  /**
   * @param {AddedToken[]} tokens
   * @param {(text: string) => string} normalize what the file does before it looks for some of them
   */
  constructor(tokens, normalize) {
    this.#normalize = normalize;
    this.#asWritten = finder(tokens.filter(({ normalized }) => !normalized), (text) => text);
    this.#asNormalized = finder(tokens.filter(({ normalized }) => normalized), normalize);
  }

  /**
   * The ids of a text, of which `idsOf(text, begins)` gives those of a part without added tokens;
   * `begins` says whether it is the beginning.
   * @param {string} text
   * @param {boolean} first whether `text` is the beginning of a prompt
   * @param {(text: string, begins: boolean) => number[]} idsOf
   */
  encode(text, first, idsOf) {
    return cut(text, this.#asWritten, first).flatMap(({ text: outer, id, begins }) => {
      if (id !== undefined) return [id];
      const inner = cut(this.#normalize(outer), this.#asNormalized, begins);
      return inner.flatMap((part) => (part.id === undefined ? idsOf(part.text, part.begins) : [part.id]));
    });
  }
}

/** @param {AddedToken[]} tokens @param {(text: string) => string} normalize @returns {Finder} */
function finder(tokens, normalize) {
  const ids = new Map(tokens.map(({ content, id }) => [normalize(content), id]));
  return { ids, pattern: ids.size ? new RegExp(`(${anyOf([...ids.keys()])})`) : null };
}

/** The parts of a text that are not empty. @param {string} text @param {Finder} finder @param {boolean} first */
function cut(text, { ids, pattern }, first) {
  const pieces = pattern ? text.split(pattern) : [text];
  return pieces
    .map((piece, place) => ({
      text: piece,
      id: place % 2 ? ids.get(piece) : undefined,
      begins: first && (place === 0 || (place === 1 && pieces[0] === "")),
    }))
    .filter((part) => part.text);
}
