/** The conversations, in memory and in the browser's storage, which all tabs share: one key each. */

import { newId, parseConversation } from "./conversation.js";

const PREFIX = "issun.conversation.";

/** localStorage or sessionStorage, or null if the browser blocks it. */
export function openStorage(name) {
  try {
    const storage = window[name];
    storage.getItem(PREFIX);
    return storage;
  } catch {
    return null;
  }
}

export class Store {
  #conversations = new Map();
  #unsaved = new Set(); // ids that could not be saved
  #storage;
  #trouble;

  /** The id of the conversation with a streaming answer, which other tabs must not change. */
  held = null;

  /** `trouble(kind, count)` is called for problems with the storage; a count of 0 clears them. */
  constructor(storage, trouble) {
    this.#storage = storage;
    this.#trouble = trouble;
    if (!storage) trouble("blocked", 1);
    const broken = this.#keys().filter((key) => !this.#read(key));
    trouble("broken", broken.length);
  }

  /** All conversations, the most recently used first. */
  get all() {
    return [...this.#conversations.values()].sort((a, b) => b.updated - a.updated);
  }

  get(id) {
    return this.#conversations.get(id);
  }

  /** Add `conversation` in memory; `save` stores it. */
  add(conversation) {
    this.#conversations.set(conversation.id, conversation);
    return conversation;
  }

  /** Store `conversation`, unless it has been removed. */
  save(conversation) {
    const { id } = conversation;
    if (!this.#storage || this.get(id) !== conversation) return;
    try {
      this.#storage.setItem(PREFIX + id, JSON.stringify(conversation));
      this.#unsaved.delete(id);
    } catch {
      this.#unsaved.add(id);
    }
    this.#trouble("full", this.#unsaved.size);
  }

  /**
   * Add conversations of a file and store them; those that are there already are left out, and one
   * that differs from that with its id becomes another conversation. Returns what was added.
   */
  import(conversations) {
    const known = new Set(this.all.map(({ id, role, messages }) => JSON.stringify([id, role, messages])));
    const added = conversations
      .filter(({ id, role, messages }) => !known.has(JSON.stringify([id, role, messages])))
      .map((each) => this.add(this.get(each.id) ? { ...each, id: newId() } : each));
    for (const conversation of added) this.save(conversation);
    return added;
  }

  remove({ id }) {
    this.#forget(id);
    this.#storage?.removeItem(PREFIX + id);
    this.#saveUnsaved();
  }

  /** Remove all conversations, including unreadable ones. */
  removeAll() {
    this.#conversations.clear();
    this.#unsaved.clear();
    for (const key of this.#keys()) this.#storage.removeItem(key);
    this.#trouble("broken", 0);
    this.#trouble("full", 0);
  }

  /** Apply a change of `key` in another tab; null means that the storage was cleared. */
  takeOver(key) {
    if (key === null) {
      for (const { id } of this.all) if (!this.#unsaved.has(id)) this.#forget(id);
    } else if (key.startsWith(PREFIX)) {
      this.#read(key);
    }
  }

  /** Read one key; false if its value is invalid. */
  #read(key) {
    const id = key.slice(PREFIX.length);
    const json = this.#storage.getItem(key);
    if (json === null) return this.#forget(id);
    if (id === this.held) return true;
    try {
      // The object is updated in place, so that references to it stay valid.
      this.add(Object.assign(this.get(id) ?? {}, parseConversation(id, JSON.parse(json))));
      return true;
    } catch {
      return false;
    }
  }

  #keys() {
    return this.#storage ? Object.keys(this.#storage).filter((key) => key.startsWith(PREFIX)) : [];
  }

  #forget(id) {
    this.#unsaved.delete(id);
    return this.#conversations.delete(id);
  }

  #saveUnsaved() {
    for (const id of [...this.#unsaved]) this.save(this.get(id));
    this.#trouble("full", this.#unsaved.size);
  }
}
