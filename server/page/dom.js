/** Helpers for DOM elements. */

import { t } from "./text.js";

export const byId = (id) => document.getElementById(id);

/** Make an element; `text` is a text key, `testid` becomes data-testid, the rest are properties. */
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

/** Make a button with the text of key `text`. */
export function makeButton(text, onclick, testid = text) {
  return make("button", { type: "button", className: "quiet", text, testid, onclick });
}

/** Make `rows` the children of `parent`; existing ones keep their focus and selection. */
export function arrange(parent, rows) {
  rows.forEach((row, place) => {
    const there = parent.children[place] ?? null;
    if (there !== row) parent.insertBefore(row, there);
  });
  while (parent.children.length > rows.length) parent.lastElementChild.remove();
}

/** Copy `text` to the clipboard; false if that is not possible. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

// navigator.clipboard is unavailable over plain http from another machine.
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
