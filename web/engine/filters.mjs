/**
 * Filters of logits (`runtime/decoding/filters.py`): a masked id has a logit of minus infinity.
 * Bans, bias and penalties change the logits; the others return a `Choice` of fewer ids.
 */

/**
 * The ids that can be drawn, ascending, and their logits divided by the temperature.
 * @typedef {{ ids: Int32Array, logits: Float32Array }} Choice
 */

const LOWEST = -3.4028234663852886e38; // of logits that are not masked
const BLOCK = 256; // ids that are examined together
const NEAR = [-4, -8, -16, LOWEST]; // below the largest logit, where a sum is expected to be reached

/** @param {Float32Array} logits @param {Iterable<number>} ids */
export function ban(logits, ids) {
  for (const id of ids) logits[id] = -Infinity;
}

/**
 * Mask the last id of each of `sequences` whose other ids are the latest ones in `seen`.
 * @param {Float32Array} logits
 * @param {number[]} seen
 * @param {number[][]} sequences
 */
export function banSequences(logits, seen, sequences) {
  for (const sequence of sequences) {
    const before = sequence.slice(0, -1);
    // As in transformers, a sequence one longer than the text does not count.
    const counts = before.length === 0 || seen.length > before.length;
    if (counts && before.every((id, i) => seen[seen.length - before.length + i] === id)) {
      ban(logits, sequence.slice(-1));
    }
  }
}

/** @param {Float32Array} logits @param {Record<string, number>} bias by id */
export function addBias(logits, bias) {
  for (const [id, value] of Object.entries(bias)) logits[Number(id)] += value;
}

/** Divide positive and multiply negative logits of the ids seen (CTRL, arXiv 1909.05858). @param {Float32Array} logits @param {number[]} seen @param {number} penalty */
export function penalizeRepetition(logits, seen, penalty) {
  for (const id of new Set(seen)) logits[id] = logits[id] > 0 ? logits[id] / penalty : logits[id] * penalty;
}

/**
 * Subtract `presence` once and `frequency` per occurrence from ids in the answer (OpenAI).
 * @param {Float32Array} logits
 * @param {number[]} answer
 * @param {number} presence
 * @param {number} frequency
 */
export function penalizeAnswer(logits, answer, presence, frequency) {
  for (const id of answer) logits[id] -= frequency;
  for (const id of new Set(answer)) logits[id] -= presence;
}

/** Mask every id that would repeat an n-gram of `size` ids. @param {Float32Array} logits @param {number[]} seen @param {number} size */
export function banRepeatedNgrams(logits, seen, size) {
  const tail = seen.length - size + 1;
  for (let start = 0; start < tail; start++) {
    let same = 0;
    while (same < size - 1 && seen[start + same] === seen[tail + same]) same++;
    if (same === size - 1) ban(logits, [seen[start + size - 1]]);
  }
}

/** The id of the largest logit, the first of equal ones. @param {Float32Array} logits */
export function argmax(logits) {
  let best = 0;
  for (let id = 1; id < logits.length; id++) if (logits[id] > logits[best]) best = id;
  return best;
}

/**
 * The ids that are not masked, of these the `k` likeliest (and ties with the k-th) unless `k` is 0,
 * with logits relative to the largest and divided by the temperature.
 * @param {Float32Array} logits
 * @param {number} k
 * @param {number} temperature above 0
 * @returns {Choice}
 */
export function choose(logits, k, temperature) {
  const least = k > 0 && k < logits.length ? kthLargest(logits, k) : LOWEST;
  const ids = placesOf(logits, Math.max(least, LOWEST));
  const top = logits[argmax(logits)];
  const divisor = Math.max(temperature, 1e-30);
  const scaled = at(logits, ids);
  for (let i = 0; i < scaled.length; i++) scaled[i] = (scaled[i] - top) / divisor;
  return { ids, logits: scaled };
}

/** Keep the smallest set of likeliest ids whose probabilities reach p (arXiv 1904.09751). @param {Choice} choice @param {number} p */
export function keepTopP(choice, p) {
  if (p >= 1) return choice;
  const { logits } = choice;
  const probabilities = softmax(logits);
  for (const near of NEAR) {
    const likely = placesOf(logits, near); // sorting all would take most of the time
    if (near > LOWEST && sumOf(probabilities, likely) < p) continue;
    return smallestSet(choice, likely, (i) => -logits[i], probabilities, p);
  }
  return choice;
}

/** Keep ids at least p times as likely as the likeliest one. @param {Choice} choice @param {number} p */
export function keepMinP(choice, p) {
  if (p <= 0) return choice;
  return select(choice, placesOf(choice.logits, choice.logits[argmax(choice.logits)] + Math.log(p)));
}

/** Keep the smallest set of most typical ids whose probabilities reach p (arXiv 2202.00666). @param {Choice} choice @param {number} p */
export function keepTypical(choice, p) {
  if (p >= 1) return choice;
  const probabilities = softmax(choice.logits);
  const alive = placesOf(probabilities, Number.MIN_VALUE);
  const surprise = probabilities.map((probability) => -Math.log(probability));
  const entropy = alive.reduce((sum, i) => sum + probabilities[i] * surprise[i], 0);
  return smallestSet(choice, alive, (i) => Math.abs(surprise[i] - entropy), probabilities, p);
}

/** The id at `uniform` (0 to 1) of the cumulative distribution over ascending ids. @param {Choice} choice @param {number} uniform */
export function draw({ ids, logits }, uniform) {
  const probabilities = softmax(logits);
  let left = uniform;
  for (let i = 0; i < ids.length; i++) {
    left -= probabilities[i];
    if (left < 0) return ids[i];
  }
  return ids[argmax(logits)]; // rounding has left none
}

/**
 * Of `among`, sorted by `key` (ties in order), as many as together reach `p`.
 * @param {Choice} choice
 * @param {Int32Array} among
 * @param {(i: number) => number} key
 * @param {Float64Array} probabilities
 * @param {number} p
 */
function smallestSet(choice, among, key, probabilities, p) {
  const keys = Float64Array.from(among, key);
  const order = Int32Array.from(among.keys()).sort((a, b) => keys[a] - keys[b] || a - b);
  let sum = 0;
  const last = order.findIndex((place) => (sum += probabilities[among[place]]) >= p);
  const kept = last < 0 ? order : order.subarray(0, last + 1);
  return select(choice, kept.map((place) => among[place]).sort());
}

/**
 * The k-th largest logit. Of blocks of ids the k-th largest maximum is at most that, so that only
 * logits above it are sorted.
 * @param {Float32Array} logits
 * @param {number} k
 */
function kthLargest(logits, k) {
  const maxima = Float32Array.from({ length: Math.floor(logits.length / BLOCK) }, (_, i) => {
    const block = logits.subarray(i * BLOCK, (i + 1) * BLOCK);
    return block[argmax(block)];
  });
  const bound = k <= maxima.length ? maxima.sort()[maxima.length - k] : -Infinity;
  const candidates = logits.filter((logit) => logit >= bound).sort();
  return candidates[candidates.length - k];
}

/** @param {Float32Array} logits */
function softmax(logits) {
  const top = logits[argmax(logits)];
  const weights = new Float64Array(logits.length);
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += weights[i] = Math.exp(logits[i] - top);
  for (let i = 0; i < weights.length; i++) weights[i] /= sum;
  return weights;
}

/** @param {Float64Array} values @param {Int32Array} places */
const sumOf = (values, places) => places.reduce((sum, i) => sum + values[i], 0);

/** @param {Choice} choice @param {Int32Array} places @returns {Choice} */
const select = ({ ids, logits }, places) => ({
  ids: places.map((i) => ids[i]),
  logits: at(logits, places),
});

/** The values at `places`. `TypedArray.from` would take ten times as long. @param {Float32Array} values @param {Int32Array} places */
function at(values, places) {
  const found = new Float32Array(places.length);
  for (let i = 0; i < places.length; i++) found[i] = values[places[i]];
  return found;
}

/** The places of values that are at least `least`. @param {Float32Array | Float64Array} values @param {number} least */
function placesOf(values, least) {
  const places = new Int32Array(values.length);
  let count = 0;
  for (let i = 0; i < values.length; i++) if (values[i] >= least) places[count++] = i;
  return places.slice(0, count);
}
