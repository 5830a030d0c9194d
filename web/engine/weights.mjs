/** Downloads the weights in parts, checks each, and stores them by content for later visits. */

import { EngineError } from "./errors.mjs";

/** @import { Weights } from "./types.d.ts" */

/**
 * The weights, and whether the browser has stored them. Parts that are stored already are not
 * downloaded again, so an interrupted download is resumed.
 * @param {Weights} weights
 * @param {URL} site
 * @param {(done: number, total: number) => void} report
 * @returns {Promise<{ bytes: Uint8Array, stored: boolean }>}
 */
export async function loadWeights(weights, site, report) {
  let begun = false;
  const load = () => {
    begun = true;
    return new Loading(weights, site, report).run();
  };
  try {
    return await navigator.locks.request(`issun ${weights.sha256}`, load); // of several tabs one downloads
  } catch (error) {
    if (begun) throw error;
    return load(); // there are no locks where storage is refused
  }
}

/** The name of the cache for the weights of a site; others of the same origin have their own. @param {URL} site */
export const cacheName = (site) => `issun weights ${site.pathname}`;

class Loading {
  #weights;
  #site;
  #report;
  #bytes;
  /** @type {Cache | null} */
  #store = null;

  /** @param {Weights} weights @param {URL} site @param {(done: number, total: number) => void} report */
  constructor(weights, site, report) {
    this.#weights = weights;
    this.#site = site;
    this.#report = report;
    this.#bytes = new Uint8Array(weights.size);
  }

  async run() {
    try {
      this.#store = await caches.open(cacheName(this.#site));
    } catch {
      this.#store = null; // without storage the weights are downloaded at every visit
    }
    const held = await this.#read();
    if (held < this.#weights.parts.length) await this.#download(held);
    await this.#removeOthers();
    return { bytes: this.#bytes, stored: this.#store !== null };
  }

  /** Read the stored parts up to the first that is missing, and return how many those are. */
  async #read() {
    const { parts, size, part_size: partSize } = this.#weights;
    for (const place of parts.keys()) {
      const response = await this.#store?.match(this.#key(place));
      if (!response) return place;
      const part = new Uint8Array(await response.arrayBuffer());
      if (!(await this.#isRight(place, part))) return place;
      this.#bytes.set(part, place * partSize);
      this.#report(Math.min((place + 1) * partSize, size), size);
    }
    return parts.length;
  }

  /** Download from part `first` on. @param {number} first */
  async #download(first) {
    const { path, part_size: partSize, size } = this.#weights;
    const start = first * partSize;
    /** @type {Record<string, string>} */
    const headers = start ? { Range: `bytes=${start}-` } : {};
    const response = await fetch(new URL(path, this.#site), { headers, cache: "no-store" });
    if (!response.ok || !response.body) throw new EngineError("errorDownload", `${path}: ${response.status}`);
    let at = response.status === 206 ? start : 0; // some servers know no ranges
    let place = at / partSize;
    for (const reader = response.body.getReader(); ; ) {
      const { done, value } = await reader.read();
      if (value && at + value.length > size) throw new EngineError("errorChanged", path);
      if (value) this.#bytes.set(value, at);
      at += value?.length ?? 0;
      while (place * partSize < at && (at === size || at >= (place + 1) * partSize)) await this.#keep(place++);
      this.#report(at, size);
      if (done) break;
    }
    if (at < size) throw new EngineError("errorDownload", `${path}: ${at} < ${size}`);
  }

  /** @param {number} place */
  async #keep(place) {
    const { path, part_size: partSize } = this.#weights;
    const part = this.#bytes.slice(place * partSize, (place + 1) * partSize);
    if (!(await this.#isRight(place, part))) throw new EngineError("errorChanged", path);
    try {
      await this.#store?.put(this.#key(place), new Response(part));
    } catch {
      this.#store = null; // it is full
    }
  }

  /** Whether a part has its hash; pages without TLS cannot compute hashes. @param {number} place @param {BufferSource & { length: number }} part */
  async #isRight(place, part) {
    const { parts, size, part_size: partSize } = this.#weights;
    if (part.length !== Math.min(partSize, size - place * partSize)) return false;
    if (!globalThis.crypto?.subtle) return true;
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", part));
    return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("") === parts[place];
  }

  async #removeOthers() {
    const kept = new Set(this.#weights.parts.map((_, place) => this.#key(place)));
    for (const request of (await this.#store?.keys()) ?? []) {
      if (!kept.has(request.url)) await this.#store?.delete(request);
    }
  }

  /** @param {number} place */
  #key(place) {
    return new URL(`weights/${this.#weights.parts[place]}/${place}`, this.#site).href;
  }
}
