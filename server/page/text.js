/** The texts of the interface, a JSON file for each language, and numbers as the language writes them. */

import en from "./en.json" with { type: "json" };
import ja from "./ja.json" with { type: "json" };

const LANGUAGES = { ja, en };
let shown = "ja";

/** Show texts in the language `name`, or in the browser's if that is "auto". */
export function setLanguage(name) {
  shown = name === "auto" ? languageOf(navigator.languages) : name;
  document.documentElement.lang = shown;
}

/** The first of the user's languages that there is, else English. */
function languageOf(tags) {
  const names = tags.map((tag) => tag.split("-")[0].toLowerCase());
  return names.find((name) => Object.hasOwn(LANGUAGES, name)) ?? "en";
}

/** The text `key` with each `{name}` replaced by that of `values`; `count` selects a plural form. */
export function t(key, values = {}) {
  const text = LANGUAGES[shown][key];
  const form = typeof text === "string" ? text : text[new Intl.PluralRules(shown).select(values.count)];
  return form.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** Whether there is a text `key`. */
export const hasText = (key) => Object.hasOwn(LANGUAGES[shown], key);

/** `value` as the language writes numbers, with `digits` decimals. */
export function number(value, digits = 0) {
  const options = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  return new Intl.NumberFormat(shown, options).format(value);
}

/** The day and time `value`, in milliseconds, as the language writes them. */
export function date(value) {
  return new Intl.DateTimeFormat(shown, { dateStyle: "long", timeStyle: "short" }).format(value);
}

/**
 * Write the texts that the elements under `root` name in data-text, -label and -placeholder.
 * Buttons show their label as a tooltip too.
 */
export function fill(root) {
  for (const element of root.querySelectorAll("[data-text]")) element.textContent = t(element.dataset.text);
  for (const element of root.querySelectorAll("[data-label]")) {
    element.ariaLabel = t(element.dataset.label);
    if (element.tagName === "BUTTON") element.title = element.ariaLabel;
  }
  for (const element of root.querySelectorAll("[data-placeholder]")) {
    element.placeholder = t(element.dataset.placeholder);
  }
}
