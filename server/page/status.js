/** The status line: progress, speed and the server's memory. */

import { speedOf, usedBy } from "./answers.js";
import { titleOf } from "./conversation.js";
import { byId } from "./dom.js";
import { number, t } from "./text.js";

const EVERY = 3000; // ms between health requests
const NEARLY = 0.8; // of the context: above it the gauge warns

export class Status {
  #status = byId("status");
  #speed = byId("speed");
  #memory = byId("memory");
  #gauge = byId("context");
  #bytes = null;
  #state = "loading";

  /**
   * Render the streaming answer `run`, or the `speed` of the last one if it is null, and how much of
   * the model's `context` the `messages` take.
   */
  render({ run, here, speed, messages, context }) {
    const now = run ? speedOf(run) : speed;
    this.#status.textContent = this.#now(run, here);
    this.#speed.textContent = now === null ? "" : t("speed", { number: number(now, 1) });
    this.#renderGauge(usedBy(messages, here ? run : null), context);
    this.#memory.textContent = this.#bytes === null ? "" : t("memory", { size: sizeText(this.#bytes) });
  }

  /** Poll the server's health while the page is visible; calls `onChange` with the result. */
  watch(api, onChange) {
    const look = async () => {
      try {
        this.#bytes = (await api.health()).memory_bytes;
        this.#state = "ready";
      } catch {
        this.#bytes = null;
        this.#state = "offline";
      }
      onChange(this.#state === "ready");
    };
    const again = async () => {
      if (!document.hidden) await look();
      setTimeout(again, EVERY);
    };
    again();
  }

  #renderGauge(value, max) {
    this.#gauge.hidden = !max || !value;
    if (this.#gauge.hidden) return;
    const [used, context] = [number(value), number(max)];
    Object.assign(byId("context-meter"), { max, high: max * NEARLY, optimum: 0, value });
    byId("context-text").textContent = t("context", { used, context });
    this.#gauge.title = t("contextDetail", { used, context });
  }

  #now(run, here) {
    if (run && !here) return t("answeringElsewhere", { title: titleOf(run.conversation) ?? t("untitled") });
    if (run) return progressText(run);
    return t(this.#state);
  }
}

/** The progress of the answer `run`. */
export function progressText({ count, info }) {
  if (count > 0) return t("answering");
  if (info.queued) return t("queued");
  if (!info.prompt_tokens) return t("thinking");
  return t("thinkingRead", { read: number(info.read_tokens), all: number(info.prompt_tokens) });
}

function sizeText(bytes) {
  return bytes < 1e9 ? `${number(bytes / 1e6)} MB` : `${number(bytes / 1e9, 2)} GB`;
}
