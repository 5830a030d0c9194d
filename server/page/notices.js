/** What the reader should know: one line for each kind, until it is closed or over. */

import { arrange, make, makeButton } from "./dom.js";
import { t } from "./text.js";

export class Notices {
  #element;
  #onClosed;
  #lines = new Map(); // kind -> its line

  /** `onClosed` is called when the reader has closed a line, and its button is gone. */
  constructor(element, onClosed) {
    this.#element = element;
    this.#onClosed = onClosed;
  }

  /** Show the text `kind`, filled with `values`, and a button for `action` (its text, what it does). */
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
    line.append(makeButton("close", () => this.#close(kind), "close-notice"));
    write();
    this.#lines.set(kind, { line, write });
    this.#render();
  }

  hide(kind) {
    if (this.#lines.delete(kind)) this.#render();
  }

  /** Write all texts again, in the language that is shown now. */
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
