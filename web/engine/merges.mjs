/** The merges of byte-pair encoding. */

export class Merges {
  #ids;
  /** @type {Map<number, { rank: number, id: number }>} by the key of two ids */
  #merges;

  /** @param {Map<string, number>} ids of the vocabulary @param {[string, string][]} merges in order */
  constructor(ids, merges) {
    this.#ids = ids;
    this.#merges = new Map(merges.map((merge, rank) => this.#entry(merge, rank)));
  }

  /** Merge the pair of the lowest rank, the first of equal ones, until there is none. @param {number[]} given */
  apply(given) {
    const ids = [...given];
    const next = ids.map((_, place) => place + 1); // where the next token begins
    const before = ids.map((_, place) => place - 1);
    /** @param {number} place */
    const mergeAt = (place) => (next[place] < ids.length ? this.#merges.get(key(ids[place], ids[next[place]])) : undefined);
    const merges = ids.map((_, place) => mergeAt(place)); // of the token at `place` and the next one
    const ranks = Float64Array.from(merges, (merge) => merge?.rank ?? Infinity);
    /** @param {number} place */
    const update = (place) => {
      merges[place] = mergeAt(place);
      ranks[place] = merges[place]?.rank ?? Infinity;
    };
    for (let place = lowest(ranks), merge; (merge = merges[place]); place = lowest(ranks)) {
      ids[place] = merge.id;
      const gone = next[place];
      [merges[gone], ranks[gone]] = [undefined, Infinity];
      next[place] = next[gone];
      if (next[gone] < ids.length) before[next[gone]] = place;
      update(place);
      if (before[place] >= 0) update(before[place]);
    }
    const found = [];
    for (let place = 0; place < ids.length; place = next[place]) found.push(ids[place]);
    return found;
  }

  /** @param {[string, string]} merge @param {number} rank @returns {[number, { rank: number, id: number }]} */
  #entry([one, other], rank) {
    const [first, second, id] = [one, other, one + other].map((text) => this.#ids.get(text) ?? -1);
    return [key(first, second), { rank, id }];
  }
}

/** @param {number} one @param {number} other */
const key = (one, other) => one * 2 ** 24 + other;

/** The place of the lowest rank. @param {Float64Array} ranks */
function lowest(ranks) {
  let best = 0;
  for (let place = 1; place < ranks.length; place++) if (ranks[place] < ranks[best]) best = place;
  return best;
}
