/** The settings dialog; changes apply at once. */

import { closeBy } from "./dialogs.js";
import { byId, make } from "./dom.js";
import { CHOICES, NUMBERS, parseNumber } from "./settings.js";
import { number, t } from "./text.js";

export class SettingsBox {
  #dialog = byId("settings");
  #settings;
  #model = null;
  #rows;

  constructor(settings) {
    this.#settings = settings;
    this.#rows = [...CHOICES.map((field) => this.#choice(field)), ...NUMBERS.map((field) => this.#number(field))];
    byId("settings-fields").append(...this.#rows.map(({ root }) => root));
    byId("open-settings").addEventListener("click", () => this.#open());
    closeBy(this.#dialog, byId("settings-close"));
    byId("settings-defaults").addEventListener("click", () => {
      settings.clear();
      this.#refill();
    });
  }

  /** Update labels, defaults and choices; `model` is null until it is known. */
  render(model) {
    this.#model = model;
    for (const row of this.#rows) row.render();
  }

  #open() {
    this.#refill();
    this.#dialog.showModal();
  }

  #refill() {
    for (const row of this.#rows) row.refill?.();
  }

  #choice({ name, options }) {
    const select = make("select", { id: `set-${name}` });
    select.append(...options.map((value) => make("option", { value, text: `${name}_${value}` })));
    select.addEventListener("change", () => this.#settings.set(name, select.value));
    const row = makeRow(name, select, `${name}-select`);
    const render = () => {
      select.value = this.#settings.get(name);
      row.byDefault.textContent = t("defaultIs", { value: t(`${name}_${options[0]}`) });
    };
    return { root: row.root, render };
  }

  // An empty box means the default, shown as its placeholder.
  #number(field) {
    const { name, whole, min, max } = field;
    const input = make("input", { id: `set-${name}`, inputMode: whole ? "numeric" : "decimal", autocomplete: "off" });
    const row = makeRow(name, input, `setting-${name}`);
    const complain = (wrong) => {
      input.ariaInvalid = String(wrong);
      row.error.textContent = wrong ? t(whole ? "rangeWhole" : "range", { min, max: number(max) }) : "";
    };
    const render = () => {
      const text = this.#defaultOf(field);
      input.placeholder = text;
      row.byDefault.textContent = t("defaultIs", { value: text });
    };
    const refill = () => {
      input.value = this.#settings.get(name) ?? "";
      complain(false);
    };
    input.addEventListener("change", () => {
      const value = parseNumber(field, input.value);
      complain(value === undefined);
      if (value !== undefined) this.#settings.set(name, value);
    });
    return { root: row.root, render, refill };
  }

  #defaultOf({ name, from }) {
    if (name === "seed") return t("seedDefault");
    return String(this.#model?.issun?.sampling?.[from] ?? t("modelDefault"));
  }
}

/** A row: label, control, description, default and error. */
function makeRow(name, control, testid) {
  const label = make("label", { htmlFor: control.id, text: name });
  const help = make("p", { className: "small", id: `${control.id}-help` });
  const byDefault = make("span", { className: "default" });
  const error = make("p", { className: "error", id: `${control.id}-error`, role: "alert" });
  help.append(make("span", { text: `${name}Help` }), " ", byDefault);
  control.dataset.testid = testid;
  control.setAttribute("aria-describedby", `${help.id} ${error.id}`);
  return { root: make("div", { className: "field" }, label, control, help, error), byDefault, error };
}
