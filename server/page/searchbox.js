/** The box that filters the list of conversations. */

import { watchComposition } from "./compose.js";
import { byId } from "./dom.js";

export class SearchBox {
  #box = byId("search");

  /** `onChange` is called for another query, `onLeave` when the user leaves the box by Escape. */
  constructor({ onChange, onLeave }) {
    const isComposing = watchComposition(this.#box);
    this.#box.addEventListener("input", (event) => {
      if (!isComposing(event)) onChange();
    });
    this.#box.addEventListener("compositionend", () => onChange());
    this.#box.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || isComposing(event) || !this.#box.value) return;
      event.preventDefault(); // an empty box leaves Escape to the page
      this.clear();
      onChange();
      onLeave();
    });
  }

  get query() {
    return this.#box.value.trim();
  }

  clear() {
    this.#box.value = "";
  }

  focus() {
    this.#box.focus();
    this.#box.select();
  }
}
