/** Follow the end of the log, only as long as the reader is there. */

const NEAR = 32; // px from the end that count as being there when scrolling down

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
    // The log's height changes with the message box, a keyboard on the screen, a turned phone.
    new ResizeObserver(() => this.settle()).observe(log);
  }

  /** Go to the end and follow it. */
  restart() {
    this.#following = true;
    this.#stay();
  }

  /** The log has changed: stay at its end, or where the reader is. */
  settle() {
    this.#scrolled(); // the event for what the reader has just scrolled may be still to come
    this.#stay();
  }

  #stay() {
    if (this.#following) this.#log.scrollTop = this.#log.scrollHeight;
    this.#top = this.#log.scrollTop;
    this.#button.hidden = this.#following || this.#distance() < 2;
  }

  #distance() {
    const { scrollHeight, scrollTop, clientHeight } = this.#log;
    return scrollHeight - scrollTop - clientHeight;
  }

  // The least scrolling up lets go; a slow wheel near the end would be pulled back otherwise.
  #scrolled() {
    const moved = this.#log.scrollTop - this.#top;
    this.#top = this.#log.scrollTop;
    if (moved < 0) this.#following = this.#distance() < 2;
    else if (this.#distance() < (moved > 0 ? NEAR : 2)) this.#following = true;
    this.#button.hidden = this.#following;
  }
}
