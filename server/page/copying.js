/** Copying to the clipboard. */

import { announce, make } from "./dom.js";
import { t } from "./text.js";

const SHOWN = 1500; // ms for which a button shows that it has copied

/** Copy `text`; `button` and screen readers say whether that was possible. */
export async function copyWith(button, text) {
  button.textContent = t((await copyText(text)) ? "copied" : "notCopied");
  announce(button.textContent);
  setTimeout(() => {
    button.textContent = t("copy");
  }, SHOWN);
}

/** Copy `text` to the clipboard; false if that is not possible. */
async function copyText(text) {
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
