/** The conversations, in memory and in the browser's storage: one key each, so two tabs share them. */

import { parseConversation } from "./conversation.js";

const PREFIX = "issun.conversation.";

/** localStorage or sessionStorage, or null where the browser blocks it. */
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
  #unsaved = new Set(); // ids whose last writing failed
  #storage;
  #trouble;

  /** The id of a conversation that other tabs must not change now, since an answer goes into it. */
  held = null;

  /** `trouble(kind, count)` is told what is wrong with the storage; a count of 0 takes it back. */
  constructor(storage, trouble) {
    this.#storage = storage;
    this.#trouble = trouble;
    if (!storage) trouble("blocked", 1);
    const broken = this.#keys().filter((key) => !this.#read(key));
    trouble("broken", broken.length);
  }

  /** All conversations, the one last spoken to first. */
  get all() {
    return [...this.#conversations.values()].sort((a, b) => b.updated - a.updated);
  }

  get(id) {
    return this.#conversations.get(id);
  }

  /** Keep `conversation` in memory; it is written with the first `save`. */
  add(conversation) {
    this.#conversations.set(conversation.id, conversation);
    return conversation;
  }

  /** Write `conversation`, unless it was removed meanwhile. */
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

  remove({ id }) {
    this.#forget(id);
    this.#storage?.removeItem(PREFIX + id);
    this.#saveUnsaved();
  }

  /** Remove everything, also what cannot be read. */
  removeAll() {
    this.#conversations.clear();
    this.#unsaved.clear();
    for (const key of this.#keys()) this.#storage.removeItem(key);
    this.#trouble("broken", 0);
    this.#trouble("full", 0);
  }

  /** Take over what another tab did to `key`; null: it cleared the storage. */
  takeOver(key) {
    if (key === null) {
      for (const { id } of this.all) if (!this.#unsaved.has(id)) this.#forget(id);
    } else if (key.startsWith(PREFIX)) {
      this.#read(key);
    }
  }

  /** Read one key; false when what it holds is broken. */
  #read(key) {
    const id = key.slice(PREFIX.length);
    const json = this.#storage.getItem(key);
    if (json === null) return this.#forget(id);
    if (id === this.held) return true;
    try {
      // The object stays the same one, so that what refers to it goes on being right.
      this.add(Object.assign(this.get(id) ?? {}, parseConversation(id, json)));
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
