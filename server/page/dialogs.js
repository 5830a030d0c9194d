/** One small dialog that asks for a yes or for a text. */

import { watchComposition } from "./compose.js";
import { byId } from "./dom.js";
import { t } from "./text.js";

let last = Promise.resolve();

/** Ask for a yes to `title`; the button for it says the text `ok`. */
export async function confirm({ title, detail, ok }) {
  return (await enqueue({ title, detail, ok, type: null, value: "" })) !== null;
}

/** Ask for a text, beginning with `value`; null when the reader wants none. */
export function askText({ title, detail, ok, value = "", type = "text" }) {
  return enqueue({ title, detail, ok, value, type });
}

// Two questions at once would answer each other.
function enqueue(question) {
  last = last.then(() => show(question));
  return last;
}

function show({ title, detail, ok, type, value }) {
  const [dialog, input] = [byId("ask"), byId("ask-input")];
  byId("ask-title").textContent = title;
  byId("ask-detail").textContent = detail;
  byId("ask-ok").textContent = t(ok);
  Object.assign(input, { hidden: type === null, type: type ?? "text", value });
  dialog.returnValue = "";
  dialog.showModal();
  if (type) input.select();
  else byId("ask-cancel").focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "ok" ? input.value : null), { once: true });
  });
}

/** Make the dialog's buttons work. */
export function prepareDialog() {
  const dialog = byId("ask");
  const isComposing = watchComposition(byId("ask-input"));
  byId("ask-input").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && isComposing(event)) event.preventDefault();
  });
  // Escape while converting takes back the conversion, not the question.
  dialog.addEventListener("cancel", (event) => {
    if (isComposing(event)) event.preventDefault();
  });
  byId("ask-form").addEventListener("submit", (event) => {
    event.preventDefault();
    dialog.close("ok");
  });
  byId("ask-cancel").addEventListener("click", () => dialog.close());
}
