/** The error of the engine. */

/** An error that the user can do something about; `key` names the page's text for it. */
export class EngineError extends Error {
  /** @param {string} key @param {string} message */
  constructor(key, message) {
    super(message);
    this.name = "EngineError";
    this.key = key;
  }
}
