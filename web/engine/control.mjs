/** Control tokens by their spellings; of those at the same place the longest one counts. */

export class ControlTokens {
  #ids;
  #names;
  #pattern;

  /** @param {Record<string, number>} special spellings and ids */
  constructor(special) {
    this.#ids = new Map(Object.entries(special));
    this.#names = new Map(Object.entries(special).map(([name, id]) => [id, name]));
    this.#pattern = anyOf([...this.#ids.keys()]);
  }

  /** `text`, cut at its control tokens, which become ids. @param {string} text @returns {(string | number)[]} */
  split(text) {
    if (!this.#pattern) return text ? [text] : [];
    const cuts = text.split(new RegExp(`(${this.#pattern})`));
    return cuts.filter(Boolean).map((cut) => this.#ids.get(cut) ?? cut);
  }

  /** The spelling of a token; empty if it is none. @param {number} id */
  nameOf(id) {
    return this.#names.get(id) ?? "";
  }

  /** The places of control tokens in `text`. @param {string} text */
  findAll(text) {
    return this.#pattern ? [...text.matchAll(new RegExp(this.#pattern, "g"))] : [];
  }
}

/** A pattern of any of `texts`, the longest first; empty without texts. @param {string[]} texts */
export function anyOf(texts) {
  const longest = texts.toSorted((a, b) => b.length - a.length);
  return longest.map((text) => text.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&")).join("|");
}
