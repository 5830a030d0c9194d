/** The keyboard shortcuts, and the dialog that lists them. */

import { closeBy } from "./dialogs.js";
import { byId, make } from "./dom.js";

const APPLE = /Mac|iPhone|iPad/.test(navigator.platform);
const MOD = APPLE ? "\u2318" : "Ctrl";

// Those of the message box are listed too; compose.js and the browser handle them.
const KEYS = [
  { name: "send", keys: ["Enter"] },
  { name: "newline", keys: ["Shift", "Enter"] },
  { name: "editLast", keys: ["\u2191"] },
  { name: "stop", keys: ["Esc"] },
  { name: "create", keys: [MOD, "Shift", "O"] },
  { name: "search", keys: [MOD, "K"] },
  { name: "toggleSidebar", keys: [MOD, "B"] },
  { name: "shortcuts", keys: [MOD, "/"] },
];

export class Shortcuts {
  #dialog = byId("shortcuts");
  #table = byId("shortcuts-table");
  #actions;

  /** `actions` holds a function for each name that is not the message box's. */
  constructor(actions) {
    this.#actions = { ...actions, shortcuts: () => this.#open() };
    byId("open-shortcuts").addEventListener("click", () => this.#open());
    closeBy(this.#dialog, byId("shortcuts-close"));
    document.addEventListener("keydown", (event) => this.#pressed(event));
  }

  /** Write the list; `mode` says which keys send a message. */
  render(mode) {
    const rows = KEYS.map(({ name, keys }) => {
      const shown = name === "send" && mode === "mod" ? [MOD, ...keys] : keys;
      const names = shown.flatMap((key) => ["+", make("kbd", { textContent: key })]).slice(1);
      return make("tr", {}, make("th", { scope: "row", text: `key_${name}` }), make("td", {}, ...names));
    });
    this.#table.replaceChildren(...rows);
  }

  #pressed(event) {
    if (event.defaultPrevented || event.isComposing || event.keyCode === 229) return;
    const name = nameOf(event);
    if (document.querySelector("dialog[open]") || !Object.hasOwn(this.#actions, name)) return;
    if (this.#actions[name]() !== false) event.preventDefault();
  }

  #open() {
    this.#dialog.showModal();
  }
}

/** The name of the shortcut that `event` is, if any. */
function nameOf(event) {
  if (event.key === "Escape") return "stop";
  if (!(APPLE ? event.metaKey : event.ctrlKey) || event.altKey) return "";
  const key = event.key.toLowerCase();
  if (event.shiftKey) return key === "o" ? "create" : "";
  return { k: "search", b: "toggleSidebar", "/": "shortcuts" }[key] ?? "";
}
