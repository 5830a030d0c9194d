/** In the page of a site: asks a question as soon as it can, and sends how long the answer took. */

const QUESTION = "日本で一番高い山は?";

/** @param {string} id */
const element = (id) => document.querySelector(`[data-testid="${id}"]`);

const appeared = async (/** @type {string} */ id) => {
  while (!element(id)?.checkVisibility()) await new Promise((resolve) => setTimeout(resolve, 10));
  return element(id);
};

// The first visit is loaded twice, so that threads can share memory (app/site.js).
sessionStorage["issun.began"] ??= performance.timeOrigin;
if (crossOriginIsolated) {
  const box = await appeared("message-input");
  box.value = QUESTION;
  box.dispatchEvent(new Event("input", { bubbles: true }));
  (await appeared("send")).click();
  await appeared("regenerate"); // the answer has ended
  const seconds = (performance.timeOrigin + performance.now() - Number(sessionStorage["issun.began"])) / 1000;
  const answer = [...document.querySelectorAll('[data-testid="message-text"]')].at(-1).textContent;
  await fetch("result", { method: "POST", body: JSON.stringify({ seconds, answer }) });
} else {
  localStorage["issun.settings"] = '{"temperature": 0}';
}
