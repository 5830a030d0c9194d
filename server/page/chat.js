/** The user's actions on conversations. */

import { isBlank, newConversation, titleOf } from "./conversation.js";
import { askText, confirm } from "./dialogs.js";
import { t } from "./text.js";

const OPEN = "issun.open"; // which conversation this tab shows

export class Chat {
  /** The current conversation. */
  current = null;

  /** The index of the message being edited, or null. */
  editing = null;

  #parts;
  #session;
  #drafts = new Map(); // conversation id -> the unsent text in its message box
  #draft = ""; // the unsent text from before the edit

  /** `parts`: store, answers, compose, notices, follow, and the functions render and announce. */
  constructor(session, parts) {
    this.#session = session;
    this.#parts = parts;
  }

  /** Show the conversation that this tab showed last, or the newest. */
  begin() {
    const { store } = this.#parts;
    this.open(store.get(this.#session?.getItem(OPEN)) ?? store.all[0] ?? store.add(newConversation()));
  }

  open(conversation) {
    const { compose, follow, render } = this.#parts;
    this.#leave();
    this.current = conversation;
    compose.text = this.#drafts.get(conversation.id) ?? "";
    try {
      this.#session?.setItem(OPEN, conversation.id);
    } catch {
      // Only the selection after a reload is lost.
    }
    this.#showDropped();
    render();
    follow.restart();
  }

  /** Open a new conversation, or an existing blank one. */
  create() {
    const { store, compose } = this.#parts;
    const blank = store.all.find(isBlank) ?? store.add(newConversation());
    blank.updated = Date.now();
    this.open(blank);
    compose.focus();
  }

  /** Send the text in the message box, replacing the message being edited. */
  send() {
    const { answers, compose } = this.#parts;
    const content = clean(compose.text);
    if (!content || answers.running) return;
    const { current, editing } = this;
    if (editing !== null) current.messages.splice(editing);
    compose.text = editing === null ? "" : this.#draft;
    this.editing = null;
    this.ask(content);
  }

  /** Send `content`, and leave the message box as it is. */
  ask(content) {
    const { store, answers, compose, notices, follow } = this.#parts;
    if (answers.running) return;
    const { current } = this;
    current.messages.push({ role: "user", content });
    current.updated = Date.now();
    notices.hide("resetDone");
    store.save(current);
    this.#answer();
    follow.restart();
    compose.focus();
  }

  /** Answer the last message again. */
  again() {
    const { answers, compose } = this.#parts;
    if (answers.running) return;
    this.cancelEdit();
    this.#answer();
    compose.focus();
  }

  /** Do again what has failed. */
  retry() {
    if (this.#parts.answers.failure(this.current)?.isContinued) this.continue();
    else this.again();
  }

  /** Continue the last answer. */
  continue() {
    const { answers, compose } = this.#parts;
    if (answers.running) return;
    this.cancelEdit();
    this.#announce(answers.continue(this.current));
    compose.focus();
  }

  /** Put one of the user's messages back into the message box. */
  edit(message) {
    const { compose, render } = this.#parts;
    if (this.editing === null) this.#draft = compose.text;
    this.editing = this.current.messages.indexOf(message);
    compose.text = message.content;
    render();
    compose.focus({ always: true });
  }

  /** Edit the user's last message, if there is one and no answer is being generated. */
  editLast() {
    const message = this.current.messages.findLast(({ role }) => role === "user");
    if (message && !this.#parts.answers.running) this.edit(message);
  }

  cancelEdit() {
    const { compose, render } = this.#parts;
    if (this.editing === null) return;
    this.editing = null;
    compose.text = this.#draft;
    render();
    compose.focus();
  }

  /** Clear the conversation, which can be undone until the next message. */
  async reset() {
    const { store, answers, notices, render } = this.#parts;
    const { current } = this;
    await this.#halt(current);
    const { messages } = current;
    if (!messages.length) return;
    this.cancelEdit();
    current.messages = [];
    answers.forgetFailure(current);
    store.save(current);
    notices.hide("dropped");
    notices.show("resetDone", { action: { text: "undo", run: () => this.#undoReset(current, messages) } });
    render();
  }

  /** Add the conversations of a file, and show the newest. */
  import(conversations) {
    const { store, notices } = this.#parts;
    const added = store.import(conversations);
    notices.show("imported", { values: { count: added.length } });
    const [newest] = added.sort((a, b) => b.updated - a.updated);
    if (newest) this.open(newest);
  }

  setRole(change) {
    const { store, render } = this.#parts;
    Object.assign(this.current.role, change);
    store.save(this.current);
    render();
  }

  async rename(conversation) {
    const { store, render } = this.#parts;
    const value = titleOf(conversation) ?? "";
    const title = await askText({ title: t("renameTitle"), detail: t("renameDetail"), ok: "save", value });
    if (title === null) return;
    conversation.title = clean(title) || null;
    store.save(conversation);
    render();
  }

  async remove(conversation) {
    const { store } = this.#parts;
    const title = titleOf(conversation) ?? t("untitled");
    const detail = t("removeDetail", { title });
    if (!(await confirm({ title: t("removeTitle"), detail, ok: "remove" }))) return;
    await this.#halt(conversation);
    store.remove(conversation);
    this.refresh();
  }

  async removeAll() {
    const { store, answers, notices } = this.#parts;
    const detail = t("removeAllDetail", { count: store.all.length });
    if (!(await confirm({ title: t("removeAllTitle"), detail, ok: "removeAll" }))) return;
    await answers.stop();
    store.removeAll();
    for (const kind of ["resetDone", "broken"]) notices.hide(kind);
    this.refresh();
  }

  /** Handle a change of the store: leave a removed conversation and stop its answer. */
  refresh() {
    const { store, answers, render } = this.#parts;
    const running = answers.running?.conversation;
    if (running && store.get(running.id) !== running) answers.stop();
    if (store.get(this.current.id) !== this.current) {
      this.#drafts.delete(this.current.id);
      this.current = null;
      this.begin();
    } else {
      if (this.current.messages[this.editing]?.role !== "user") this.cancelEdit();
      render();
    }
  }

  #answer() {
    return this.#announce(this.#parts.answers.ask(this.current));
  }

  /** Announce the answer of `run`, a promise, when it has ended. */
  async #announce(run) {
    const { announce } = this.#parts;
    const { conversation, message } = await run;
    const here = conversation === this.current;
    if (here) this.#showDropped();
    if (message.content) announce(here ? message.content : t("answeredElsewhere", { title: titleOf(conversation) ?? "" }));
  }

  /** Stop the answer in `conversation`. */
  async #halt(conversation) {
    const { answers } = this.#parts;
    if (answers.running?.conversation === conversation) await answers.stop();
  }

  #leave() {
    const { compose, notices } = this.#parts;
    notices.hide("resetDone");
    if (this.current) this.#drafts.set(this.current.id, this.editing === null ? compose.text : this.#draft);
    this.editing = null;
  }

  #undoReset(conversation, messages) {
    const { store, follow, render } = this.#parts;
    if (conversation.messages.length) return;
    conversation.messages = messages;
    store.save(conversation);
    render();
    follow.restart();
  }

  #showDropped() {
    const { notices } = this.#parts;
    const dropped = this.current.messages.at(-1)?.dropped;
    if (dropped) notices.show("dropped", { values: { count: dropped } });
    else notices.hide("dropped");
  }
}

// A lone surrogate, such as from a truncated paste, cannot be sent to the server.
function clean(text) {
  return (text.toWellFormed?.() ?? text).trim();
}
