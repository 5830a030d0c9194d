/** The sidebar: beside the conversation, where it can be folded, or over it on narrow screens. */

import { byId } from "./dom.js";

const KEY = "issun.sidebar"; // "folded", or unset

export class Sidebar {
  #sidebar = byId("sidebar");
  #opener = byId("open-sidebar");
  #closer = byId("close-sidebar");
  #narrow = matchMedia("(max-width: 47.99rem)");
  #storage;
  #open = true;

  constructor(storage) {
    this.#storage = storage;
    this.#opener.addEventListener("click", () => this.#show(true));
    this.#closer.addEventListener("click", () => this.#show(false));
    byId("shade").addEventListener("click", () => this.closeDrawer());
    this.#sidebar.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || event.isComposing || event.defaultPrevented || !this.#isDrawer) return;
      event.preventDefault();
      this.closeDrawer();
    });
    this.#narrow.addEventListener("change", () => this.#begin());
    this.#begin();
  }

  /** Show the sidebar, or hide it where it is shown. */
  toggle() {
    this.#show(!this.#open);
  }

  /** Show the sidebar if it is hidden. */
  open() {
    if (!this.#open) this.#show(true);
  }

  /** Close the sidebar where it lies over the conversation, and restore the focus. */
  closeDrawer() {
    if (this.#isDrawer) this.#show(false);
  }

  get #isDrawer() {
    return this.#open && this.#narrow.matches;
  }

  #begin() {
    this.#set(!this.#narrow.matches && this.#storage?.getItem(KEY) !== "folded");
  }

  #show(open) {
    this.#set(open);
    (open ? this.#closer : this.#opener).focus();
    if (!this.#narrow.matches) this.#remember(open);
  }

  #set(open) {
    this.#open = open;
    document.body.classList.toggle("sidebar-hidden", !open);
    byId("main").inert = this.#isDrawer;
    this.#opener.ariaExpanded = String(open);
  }

  #remember(open) {
    try {
      if (open) this.#storage?.removeItem(KEY);
      else this.#storage?.setItem(KEY, "folded");
    } catch {
      // Only the folding after a reload is lost.
    }
  }
}
