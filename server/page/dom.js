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

/** Make a button with the text of key `text`; `kind` is a class beside "quiet". */
export function makeButton(text, onclick, { testid = text, kind = "" } = {}) {
  return make("button", { type: "button", className: `quiet ${kind}`.trim(), text, testid, onclick });
}

/** Make `rows` the children of `parent`; existing ones keep their focus and selection. */
export function arrange(parent, rows) {
  rows.forEach((row, place) => {
    const there = parent.children[place] ?? null;
    if (there !== row) parent.insertBefore(row, there);
  });
  while (parent.children.length > rows.length) parent.lastElementChild.remove();
}

/** Announce `text` to screen readers. */
export function announce(text) {
  byId("announcer").textContent = text;
}
