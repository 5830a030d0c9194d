/** Keys and values as tensors that grow: the public API alone, which copies them at every step. */

/** @import { Cache, Feed, Manifest, Ort, OrtTensor, Session } from "./types.d.ts" */

/** @implements {Cache} */
export class GrowingCache {
  #ort;
  #session;
  #shape;
  #type;
  #names;
  /** @type {OrtTensor[]} */
  #past = [];

  /** @param {Ort} ort @param {Session} session @param {Manifest} manifest */
  constructor(ort, session, { architecture: { n_head, n_kv_head = n_head, kv_head_dim } }) {
    this.#ort = ort;
    this.#session = session;
    this.#names = pastNames(session);
    this.#type = pastType(session);
    this.#shape = [1, n_kv_head, kv_head_dim];
  }

  /** @param {Record<string, Feed>} feeds @param {number} past */
  async run(feeds, past) {
    const { Tensor } = this.#ort;
    /** @type {Record<string, OrtTensor>} */
    const inputs = {};
    for (const [name, feed] of Object.entries(feeds)) inputs[name] = new Tensor(...feed);
    this.#names.forEach((name, i) => (inputs[name] = this.#cut(this.#past[i], past)));
    const outputs = await this.#session.run(inputs);
    this.#past = this.#names.map((name) => outputs[presentOf(name)]);
    return /** @type {Float32Array} */ (outputs.logits.data);
  }

  close() {
    this.#past = [];
  }

  /** The first `length` positions of (1, heads, positions, width). @param {OrtTensor | undefined} tensor @param {number} length */
  #cut(tensor, length) {
    const [batch, heads, width] = this.#shape;
    const Values = this.#type === "int8" ? Int8Array : Float32Array;
    if (tensor?.dims[2] === length) return tensor;
    const cut = new Values(batch * heads * length * width);
    if (tensor) {
      const values = /** @type {Float32Array} */ (tensor.data);
      const stride = tensor.dims[2] * width;
      for (let head = 0; head < heads; head++) {
        cut.set(values.subarray(head * stride, head * stride + length * width), head * length * width);
      }
    }
    return new this.#ort.Tensor(this.#type, cut, [batch, heads, length, width]);
  }
}

/** The graph's inputs of keys and values. @param {Session} session */
export const pastNames = ({ inputNames }) => inputNames.filter((name) => name.startsWith("past_key_values."));

/** Their type, float32 or int8. @param {Session} session */
export const pastType = ({ inputMetadata }) =>
  inputMetadata.find(({ name }) => name.startsWith("past_key_values."))?.type ?? "float32";

/** The output that continues an input. @param {string} name */
export const presentOf = (name) => name.replace("past_key_values", "present");
