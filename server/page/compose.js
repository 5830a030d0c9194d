/** The message box: whether Enter sends or belongs to the input method. */

import { byId } from "./dom.js";
import { t } from "./text.js";

/** A predicate for events on `box` that belong to an input method's conversion. */
export function watchComposition(box) {
  let composing = false;
  let timer = 0;
  box.addEventListener("compositionstart", () => {
    clearTimeout(timer);
    composing = true;
  });
  // Safari fires compositionend before the keydown (229) and a dialog's cancel event of the same key.
  box.addEventListener("compositionend", () => {
    timer = setTimeout(() => {
      composing = false;
    }, 0);
  });
  return (event) => {
    if (event.isComposing || event.keyCode === 229) return true;
    return composing && event.type !== "keydown"; // on a busy page the next key is ahead of the timer
  };
}

/** Whether `event` sends the message; `mode` is "enter" or "mod" (Ctrl or ⌘ with Enter). */
export function asksToSend(event, mode) {
  if (event.key !== "Enter" || event.shiftKey || event.altKey) return false;
  return mode === "enter" || event.ctrlKey || event.metaKey;
}

export class Compose {
  #box = byId("message-input");
  #send = byId("send");
  #stop = byId("stop");
  #editing = byId("editing");
  #mode = "enter";

  /** `onRecall` is called for the arrow up in an empty box; the others for their buttons and keys. */
  constructor({ onSend, onStop, onCancel, onRecall }) {
    const isComposing = watchComposition(this.#box);
    this.#box.addEventListener("keydown", (event) => {
      if (isComposing(event)) return;
      if (event.key === "Escape" && !this.#editing.hidden) {
        event.preventDefault(); // it does not stop an answer too
        onCancel();
      }
      if (event.key === "ArrowUp" && !this.#box.value) {
        event.preventDefault();
        onRecall();
      }
      if (!asksToSend(event, this.#mode)) return;
      event.preventDefault();
      if (!event.repeat) onSend();
    });
    this.#box.addEventListener("input", () => this.#grow());
    byId("compose").addEventListener("submit", (event) => {
      event.preventDefault();
      onSend();
    });
    this.#stop.addEventListener("click", onStop);
    byId("cancel-edit").addEventListener("click", onCancel);
  }

  get text() {
    return this.#box.value;
  }

  set text(text) {
    this.#box.value = text;
    this.#grow();
  }

  /** Show what Enter does in the placeholder. */
  setMode(mode) {
    this.#mode = mode;
    this.#box.placeholder = t(`hint_${mode}`);
    this.#box.enterKeyHint = mode === "enter" ? "send" : "enter";
  }

  render({ running, editing }) {
    const focused = document.activeElement;
    this.#send.disabled = running;
    this.#stop.hidden = !running;
    this.#editing.hidden = !editing;
    // Hiding a focused button would lose the focus.
    if (focused === (running ? this.#send : this.#stop)) this.focus();
  }

  /** Focus the box; unless `always`, only where that does not open an on-screen keyboard. */
  focus({ always = false } = {}) {
    if (always || matchMedia("(pointer: fine)").matches) this.#box.focus();
  }

  #grow() {
    this.#box.style.height = "auto";
    const border = this.#box.offsetHeight - this.#box.clientHeight;
    this.#box.style.height = `${this.#box.scrollHeight + border}px`;
  }
}
