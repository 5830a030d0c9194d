/** Notices: one line for each kind, until it is closed or no longer applies. */

import { arrange, make, makeButton } from "./dom.js";
import { t } from "./text.js";

export class Notices {
  #element;
  #onClosed;
  #lines = new Map(); // kind -> line

  /** `onClosed` is called when the user has closed a line, which loses the focus. */
  constructor(element, onClosed) {
    this.#element = element;
    this.#onClosed = onClosed;
  }

  /** Show the text `kind` with `values`, and a button for `action` (text key and function). */
  show(kind, { values = {}, action = null } = {}) {
    const text = make("span");
    const write = () => {
      text.textContent = t(kind, values);
    };
    const line = make("p", {}, text);
    if (action) {
      line.append(
        makeButton(action.text, () => {
          this.#close(kind);
          action.run();
        }),
      );
    }
    line.append(makeButton("close", () => this.#close(kind), { testid: "close-notice" }));
    write();
    this.#lines.set(kind, { line, write });
    this.#render();
  }

  hide(kind) {
    if (this.#lines.delete(kind)) this.#render();
  }

  /** Rewrite all texts in the current language. */
  translate() {
    for (const { write } of this.#lines.values()) write();
  }

  #close(kind) {
    this.hide(kind);
    this.#onClosed();
  }

  #render() {
    const lines = [...this.#lines.values()];
    arrange(
      this.#element,
      lines.map(({ line }) => line),
    );
  }
}
