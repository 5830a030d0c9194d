/** The settings: names, limits, defaults and stored values. */

const KEY = "issun.settings";

// The first option is the default.
export const CHOICES = [
  { name: "language", options: ["auto", "ja", "en"] },
  { name: "theme", options: ["auto", "light", "dark"] },
  { name: "enter", options: ["enter", "mod"] },
];

// `from` is the server's name for the parameter, under which it reports the default.
export const NUMBERS = [
  { name: "temperature", from: "temperature", min: 0, max: 2 },
  { name: "top_p", from: "top_p", min: 0.01, max: 1 },
  { name: "top_k", from: "top_k", min: 0, max: 100000, whole: true },
  { name: "min_p", from: "min_p", min: 0, max: 1 },
  { name: "repetition_penalty", from: "repetition_penalty", min: 0.01, max: 100 },
  { name: "max_tokens", from: "max_new_tokens", min: 1, max: 100000, whole: true },
  { name: "seed", from: "seed", min: 0, max: 2 ** 31 - 1, whole: true },
];

/** Parse `text`: null for an empty text, undefined for an invalid value of `field`. */
export function parseNumber(field, text) {
  const plain = text.normalize("NFKC").trim(); // accepts full-width digits
  if (plain === "") return null;
  return accepts(field, Number(plain)) ? Number(plain) : undefined;
}

function accepts({ min, max, whole }, value) {
  return typeof value === "number" && value >= min && value <= max && (!whole || Number.isInteger(value));
}

export class Settings {
  #values = {};
  #storage;
  #onChange;
  #trouble;

  constructor(storage, { onChange, trouble }) {
    this.#storage = storage;
    this.#onChange = onChange;
    this.#trouble = trouble;
    this.#values = this.#load();
  }

  /** The value of `name`; if unset, the default of a choice, or null for a number. */
  get(name) {
    return this.#values[name] ?? CHOICES.find((choice) => choice.name === name)?.options[0] ?? null;
  }

  /** Set `name`; null restores the default. */
  set(name, value) {
    const { [name]: _, ...others } = this.#values;
    this.#put(value === null ? others : { ...others, [name]: value });
  }

  clear() {
    this.#put({});
  }

  /** Apply a change made in another tab. */
  takeOver(key) {
    if (key !== null && key !== KEY) return;
    this.#values = this.#load();
    this.#onChange();
  }

  /** The sampling parameters of a request to `model`. */
  sampling(model) {
    const defaults = model.issun?.sampling ?? {};
    const values = NUMBERS.map(({ name, from }) => [name, this.get(name) ?? defaults[from] ?? null]);
    return Object.fromEntries(values.filter(([, value]) => value !== null));
  }

  #put(values) {
    this.#values = values;
    try {
      this.#storage?.setItem(KEY, JSON.stringify(values));
    } catch {
      this.#trouble("full", 1);
    }
    this.#onChange();
  }

  #load() {
    let kept = {};
    try {
      kept = JSON.parse(this.#storage?.getItem(KEY) ?? "{}") ?? {};
    } catch {
      // Invalid settings are ignored.
    }
    const choices = CHOICES.filter(({ name, options }) => options.includes(kept[name]));
    const numbers = NUMBERS.filter((field) => accepts(field, kept[field.name]));
    return Object.fromEntries([...choices, ...numbers].map(({ name }) => [name, kept[name]]));
  }
}
