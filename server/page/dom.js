/** Small helpers for elements. */

import { t } from "./text.js";

export const byId = (id) => document.getElementById(id);

/** An element; `text` names an interface text, `testid` becomes data-testid, the rest are properties. */
export function make(tag, { text, testid, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  if (testid) element.dataset.testid = testid;
  if (text) {
    element.dataset.text = text;
    element.textContent = t(text);
  }
  element.append(...children);
  return element;
}

/** A button that says the interface text `text`. */
export function makeButton(text, onclick, testid = text) {
  return make("button", { type: "button", className: "quiet", text, testid, onclick });
}

/** Let `parent` hold exactly `rows`; those in place stay untouched, with their focus and selection. */
export function arrange(parent, rows) {
  rows.forEach((row, place) => {
    const there = parent.children[place] ?? null;
    if (there !== row) parent.insertBefore(row, there);
  });
  while (parent.children.length > rows.length) parent.lastElementChild.remove();
}

/** Put `text` on the clipboard; false where that is not possible. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

// navigator.clipboard is missing where the page comes over http from another machine.
function copyBySelection(text) {
  const focused = document.activeElement;
  const area = make("textarea", { value: text, className: "unseen" });
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  focused?.focus();
  return copied;
}
