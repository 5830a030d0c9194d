/** The list of conversations. */

import { titleOf } from "./conversation.js";
import { arrange, make, makeButton } from "./dom.js";
import { t } from "./text.js";

export class List {
  #element;
  #actions;
  #rows = new WeakMap(); // conversation -> its row

  /** `actions` holds open(conversation, message), rename(conversation) and remove(conversation). */
  constructor(element, actions) {
    this.#element = element;
    this.#actions = actions;
  }

  /** Render what a search has `found`: conversations, each with a message and an excerpt of it. */
  render({ found, current, running }) {
    const rows = found.map(({ conversation, message, excerpt }) => {
      const row = this.#rowOf(conversation);
      row.update(titleOf(conversation) ?? t("untitled"), {
        here: conversation === current,
        running: conversation === running,
        message,
        excerpt,
      });
      return row.root;
    });
    arrange(this.#element, rows);
  }

  #rowOf(conversation) {
    if (!this.#rows.has(conversation)) this.#rows.set(conversation, makeRow(conversation, this.#actions));
    return this.#rows.get(conversation);
  }
}

function makeRow(conversation, { open, rename, remove }) {
  const name = make("span", { className: "name" });
  const tag = make("span", { className: "tag", text: "running" });
  const part = make("span", { className: "excerpt small" });
  let found = null; // the message to show
  const onclick = () => open(conversation, found);
  const opening = make("button", { type: "button", className: "open", testid: "conversation", onclick }, name, tag, part);
  const renaming = makeButton("rename", () => rename(conversation));
  const removing = makeButton("remove", () => remove(conversation), { testid: "delete", kind: "danger" });
  const buttons = make("div", { className: "actions" }, renaming, removing);
  const root = make("li", {}, opening, buttons);
  const update = (title, { here, running, message, excerpt }) => {
    found = message;
    part.textContent = excerpt;
    name.textContent = opening.title = title;
    tag.hidden = !running;
    renaming.ariaLabel = t("renameOf", { title });
    removing.ariaLabel = t("removeOf", { title });
    opening.ariaCurrent = here ? "true" : null;
    root.classList.toggle("here", here);
  };
  return { root, update };
}
