/** The drawer that holds the list of conversations on narrow screens. */

import { byId } from "./dom.js";

export class Drawer {
  #sidebar = byId("sidebar");
  #opener = byId("open-drawer");

  constructor() {
    this.#opener.addEventListener("click", () => this.#set(true));
    byId("close-drawer").addEventListener("click", () => this.close());
    byId("shade").addEventListener("click", () => this.close());
    this.#sidebar.addEventListener("keydown", ({ key, isComposing }) => {
      if (key === "Escape" && !isComposing) this.close();
    });
    matchMedia("(min-width: 48rem)").addEventListener("change", () => this.close());
  }

  get #isOpen() {
    return document.body.classList.contains("drawer-open");
  }

  /** Close the drawer, if open, and restore the focus. */
  close() {
    if (!this.#isOpen) return;
    this.#set(false);
    this.#opener.focus();
  }

  #set(open) {
    document.body.classList.toggle("drawer-open", open);
    byId("main").inert = open;
    this.#opener.ariaExpanded = String(open);
    if (open) byId("close-drawer").focus();
  }
}
