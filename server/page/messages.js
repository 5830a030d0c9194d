/** The messages of a conversation, with the progress or the error of the current answer. */

import { makeAnswerText, makeQuestionText } from "./bodies.js";
import { isUnanswered } from "./conversation.js";
import { arrange, make, makeButton } from "./dom.js";
import { progressText } from "./status.js";
import { t } from "./text.js";

const CUT = ["stopped", "partial", "length", "error"]; // states of answers that can be continued

export class Messages {
  #log;
  #actions;
  #rows = new WeakMap(); // message -> row; reused rows keep their focus and selection
  #thinking = make("p", { className: "thinking" });
  #empty;
  #failure;
  #found = null; // the row of the message that a search has found
  #frame = 0;

  /**
   * `empty` is shown while there are no messages; `actions` holds copy(message, button),
   * edit(message), continue(), regenerate() and retry().
   */
  constructor(log, empty, actions) {
    this.#log = log;
    this.#empty = empty;
    this.#actions = actions;
    this.#failure = makeFailure(actions.retry);
  }

  /** Render `messages`; `run` is the streaming answer, `here` whether it is in this conversation. */
  render({ messages, run, here, failure, editing }) {
    const rows = messages.map((message, place) => {
      const row = this.#rowOf(message);
      row.update({
        live: here && run.message === message,
        busy: here,
        replaced: editing !== null && place >= editing,
        unanswered: isUnanswered(messages, place),
        again: run === null && message.role === "assistant" && place === messages.length - 1,
      });
      return row.root;
    });
    if (here && run.count === 0) {
      this.#thinking.textContent = progressText(run);
      rows.push(this.#thinking);
    } else if (failure || messages.at(-1)?.role === "user") {
      this.#failure.update(failure ?? { key: "unanswered" }, run !== null);
      rows.push(this.#failure.root);
    }
    this.#log.classList.toggle("is-empty", rows.length === 0);
    arrange(this.#log, rows.length ? rows : [this.#empty]);
  }

  /** Mark `message` alone, and scroll to it; null marks none. */
  reveal(message) {
    this.#found?.classList.remove("found");
    this.#found = this.#rows.get(message)?.root;
    this.#found?.classList.add("found");
    this.#found?.scrollIntoView({ block: "center" });
  }

  /** Render new text at most once per frame, then call `shown`. */
  showProgress(run, shown) {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#thinking.textContent = progressText(run);
      this.#rows.get(run.message)?.showText();
      shown();
    });
  }

  #rowOf(message) {
    if (!this.#rows.has(message)) this.#rows.set(message, makeRow(message, this.#actions));
    return this.#rows.get(message);
  }
}

/** The row of one message: its element, and functions to update it. */
function makeRow(message, { copy, edit, regenerate, ...actions }) {
  const { role } = message;
  const note = make("p", { className: "note" });
  const again = makeButton("regenerate", regenerate);
  const continuing = makeButton("continue", actions.continue);
  const copying = makeButton("copy", () => copy(message, copying), { kind: "on-hover" });
  const editing = makeButton("edit", () => edit(message), { kind: "on-hover" });
  const own = role === "user" ? [copying, editing] : [copying];
  const buttons = make("div", { className: "actions" });
  const body = make("div", { className: "body", dir: "auto", testid: "message-text" });
  const show = role === "user" ? makeQuestionText(body) : makeAnswerText(body);
  const speaker = make("h2", { className: "speaker", text: role });
  const root = make("article", { className: role, testid: `message-${role}` }, speaker, body, note, buttons);

  const showText = () => show(message.content);
  const update = (now) => {
    showText();
    const state = now.unanswered ? "unanswered" : message.state;
    note.textContent = state && !now.live ? t(`state_${state}`) : "";
    root.ariaBusy = String(now.live);
    root.classList.toggle("replaced", now.replaced);
    buttons.hidden = now.live;
    editing.disabled = now.busy;
    arrange(buttons, [
      ...(now.again && CUT.includes(message.state) ? [continuing] : []),
      ...(now.again ? [again] : []),
      ...own,
    ]);
  };
  return { root, showText, update };
}

function makeFailure(retry) {
  const what = make("p");
  const detail = make("p", { className: "small" });
  const button = makeButton("retry", retry);
  const said = make("div", { role: "alert" }, what, detail);
  const root = make("div", { className: "failure", testid: "failure" }, said, button);
  const update = (failure, busy) => {
    const message = failure.message ?? "";
    const text = t(failure.key, failure);
    // Setting the same text again would make screen readers repeat it.
    if (what.textContent !== text) what.textContent = text;
    if (detail.textContent !== message) detail.textContent = message;
    button.disabled = busy;
  };
  return { root, update };
}
