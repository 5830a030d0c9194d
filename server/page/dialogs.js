/** Dialogs: what closes them, and a small one that asks for a confirmation or a text. */

import { watchComposition } from "./compose.js";
import { byId } from "./dom.js";
import { t } from "./text.js";

let last = Promise.resolve();

/** Ask for a confirmation of what cannot be undone; `ok` is the text key of the button. */
export async function confirm({ title, detail, ok }) {
  return (await enqueue({ title, detail, ok, type: null, value: "" })) !== null;
}

/** Ask for a text, initially `value`; null if the user cancels. */
export function askText({ title, detail, ok, value = "", type = "text" }) {
  return enqueue({ title, detail, ok, value, type });
}

// There is only one dialog, so questions are asked one after the other.
function enqueue(question) {
  last = last.then(() => show(question));
  return last;
}

function show({ title, detail, ok, type, value }) {
  const [dialog, input] = [byId("ask"), byId("ask-input")];
  byId("ask-title").textContent = title;
  byId("ask-detail").textContent = detail;
  byId("ask-ok").textContent = t(ok);
  byId("ask-ok").classList.toggle("danger", type === null);
  Object.assign(input, { hidden: type === null, type: type ?? "text", value });
  dialog.returnValue = "";
  dialog.showModal();
  if (type) input.select();
  else byId("ask-cancel").focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "ok" ? input.value : null), { once: true });
  });
}

/** Let `button` and a click beside `dialog` close it. */
export function closeBy(dialog, button) {
  button.addEventListener("click", () => dialog.close());
  // A click whose target is the dialog itself is outside its contents.
  dialog.addEventListener("click", ({ target }) => {
    if (target === dialog) dialog.close();
  });
}

/** Set up the buttons of the dialog that asks. */
export function prepareDialog() {
  const dialog = byId("ask");
  const isComposing = watchComposition(byId("ask-input"));
  byId("ask-input").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && isComposing(event)) event.preventDefault();
  });
  // Escape during a conversion cancels the conversion, not the dialog.
  dialog.addEventListener("cancel", (event) => {
    if (isComposing(event)) event.preventDefault();
  });
  byId("ask-form").addEventListener("submit", (event) => {
    event.preventDefault();
    dialog.close("ok");
  });
  byId("ask-cancel").addEventListener("click", () => dialog.close());
}
