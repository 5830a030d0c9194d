/** The selection of a role, and the text of the user's own one. */

import { watchComposition } from "./compose.js";
import { byId, make } from "./dom.js";
import { ROLES, roleText } from "./roles.js";

export class RoleBar {
  #select = byId("role-select");
  #text = byId("role-text");
  #shown = { role: null, count: 0 };
  #changed = null; // what was shown when the user changed the role

  /** `onChange` is called with the changes: a preset's name or the user's own text. */
  constructor(onChange) {
    const change = (values) => {
      this.#changed = this.#shown;
      onChange(values);
    };
    const isComposing = watchComposition(this.#text);
    this.#select.append(...ROLES.map((role) => make("option", { value: role, text: `role_${role}` })));
    this.#select.addEventListener("change", () => change(this.#chosen()));
    this.#text.addEventListener("input", (event) => {
      if (!isComposing(event)) change({ text: this.#text.value });
    });
    // Not every browser fires an input event at the end of a conversion.
    for (const type of ["compositionend", "change"]) {
      this.#text.addEventListener(type, () => change({ text: this.#text.value }));
    }
  }

  /** Show the role of a conversation that has `count` messages. */
  render(role, count) {
    this.#select.value = role.preset;
    this.#select.title = roleText(role);
    byId("role-own").hidden = role.preset !== "own";
    // Setting the value would cancel a conversion and move the cursor.
    if (document.activeElement !== this.#text) this.#text.value = role.text;
    // A new role applies from the next message; say so until there is one.
    byId("role-note").hidden = count === 0 || this.#changed?.role !== role || this.#changed.count !== count;
    this.#shown = { role, count };
  }

  // The user's own text begins with that of the preset before it.
  #chosen() {
    const preset = this.#select.value;
    const { role } = this.#shown;
    return preset === "own" && !role.text.trim() ? { preset, text: roleText(role) } : { preset };
  }
}
