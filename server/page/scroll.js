/** Keeps the log scrolled to its end while the user is at the end. */

const NEAR = 32; // px from the end that count as the end when scrolling down

export class Follow {
  #log;
  #button;
  #following = true;
  #top = 0;

  constructor(log, button) {
    this.#log = log;
    this.#button = button;
    log.addEventListener("scroll", () => this.#scrolled());
    button.addEventListener("click", () => {
      log.focus({ preventScroll: true });
      this.restart();
    });
    // The log's height changes with the message box, an on-screen keyboard or the orientation.
    new ResizeObserver(() => this.settle()).observe(log);
  }

  /** Scroll to the end and follow it. */
  restart() {
    this.#following = true;
    this.#stay();
  }

  /** Handle a change of the log: stay at its end or at the user's position. */
  settle() {
    this.#scrolled(); // the scroll event of the latest movement may not have fired yet
    this.#stay();
  }

  #stay() {
    // Without messages the log shows what is read from its beginning.
    const end = this.#log.classList.contains("is-empty") ? 0 : this.#log.scrollHeight;
    if (this.#following) this.#log.scrollTop = end;
    this.#top = this.#log.scrollTop;
    this.#button.hidden = this.#following || this.#distance() < 2;
  }

  #distance() {
    const { scrollHeight, scrollTop, clientHeight } = this.#log;
    return scrollHeight - scrollTop - clientHeight;
  }

  // Any scrolling up stops following, or slow scrolling near the end would be undone.
  #scrolled() {
    const moved = this.#log.scrollTop - this.#top;
    this.#top = this.#log.scrollTop;
    if (moved < 0) this.#following = this.#distance() < 2;
    else if (this.#distance() < (moved > 0 ? NEAR : 2)) this.#following = true;
    this.#button.hidden = this.#following;
  }
}
