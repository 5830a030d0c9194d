/** Prefix search in bytes: a trie of spellings, and SentencePiece's double array of replacements. */

import { viewOf } from "./proto.mjs";

/** @typedef {{ next: Map<number, TrieNode>, id: number }} TrieNode */

export class Trie {
  /** @type {TrieNode} */
  #root = { next: new Map(), id: -1 };

  /** @param {Uint8Array} bytes @param {number} id */
  add(bytes, id) {
    let node = this.#root;
    for (const byte of bytes) {
      let next = node.next.get(byte);
      if (!next) node.next.set(byte, (next = { next: new Map(), id: -1 }));
      node = next;
    }
    node.id = id;
  }

  /**
   * Call `found(end, id)` for every spelling that begins at `start`, the shortest first.
   * @param {Uint8Array} bytes
   * @param {number} start
   * @param {(end: number, id: number) => void} found
   */
  match(bytes, start, found) {
    /** @type {TrieNode | undefined} */
    let node = this.#root;
    for (let end = start; end < bytes.length; ) {
      node = node.next.get(bytes[end++]);
      if (!node) return;
      if (node.id >= 0) found(end, node.id);
    }
  }
}

/**
 * The normalizer's replacements (`precompiled_charsmap`): the size of a double array, the array,
 * and the texts that its values point to.
 * Source: https://github.com/s-yata/darts-clone and normalizer.cc of SentencePiece
 */
export class CharsMap {
  #units;
  #texts;

  /** @param {Uint8Array} blob */
  constructor(blob) {
    const view = viewOf(blob);
    const size = view.getUint32(0, true);
    this.#units = Uint32Array.from({ length: size / 4 }, (_, i) => view.getUint32(4 + 4 * i, true));
    this.#texts = blob.subarray(4 + size);
  }

  /**
   * The longest entry that begins at `start`: its replacement and its end, or null.
   * @param {Uint8Array} bytes
   * @param {number} start
   * @returns {[Uint8Array, number] | null}
   */
  longest(bytes, start) {
    const units = this.#units;
    let node = offsetOf(units[0]);
    let value = -1;
    let end = start;
    for (let at = start; at < bytes.length; at++) {
      node ^= bytes[at];
      const unit = units[node];
      if ((unit & 0x800000ff) !== bytes[at]) break; // the label, and no leaf
      node ^= offsetOf(unit);
      if ((unit >>> 8) & 1) {
        value = units[node] & 0x7fffffff;
        end = at + 1;
      }
    }
    return value < 0 ? null : [this.#texts.subarray(value, this.#texts.indexOf(0, value)), end];
  }
}

/** @param {number} unit */
const offsetOf = (unit) => (unit >>> 10) << ((unit & 512) >>> 6);
