/** The site as an application: its service worker, updates, and what the browser has stored. */

import { confirm } from "./dialogs.js";
import { byId, make, makeButton } from "./dom.js";
import { showLine } from "./lines.js";
import { openStorage } from "./store.js";
import { t } from "./text.js";

const SCOPE = new URL("../", import.meta.url);
const TRIED = "issun.isolated";
const PATIENCE = 8000; // ms

const tabs = openStorage("sessionStorage");
let prepared = null;

/** Register the service worker, once; `stop` ends all that asks it for files. */
export const prepareSite = (stop) => (prepared ??= prepare(stop));

/**
 * On plain hosting only the service worker can add the headers that threads need, so the first
 * visit is loaded again once. Without it the model runs on one thread, and not offline.
 */
async function prepare(stop) {
  const { serviceWorker } = navigator;
  try {
    const registration = await serviceWorker.register(new URL("sw.js", SCOPE), { scope: SCOPE.pathname });
    offerUpdates(registration, stop);
    offerRemoval(registration);
    if (crossOriginIsolated || !tabs || tabs.getItem(TRIED)) return;
    if (!serviceWorker.controller) await within(PATIENCE, controllerChange());
    if (!serviceWorker.controller) return;
    tabs.setItem(TRIED, "1");
    location.reload();
    await new Promise(() => {});
  } catch {
    // There is no service worker in this browser, or storage is refused.
  }
}

function controllerChange() {
  return new Promise((resolve) => {
    navigator.serviceWorker.addEventListener("controllerchange", resolve, { once: true });
  });
}

const within = (ms, promise) => Promise.race([promise, new Promise((resolve) => setTimeout(resolve, ms))]);

/** Once a new version is stored, offer to load it. */
function offerUpdates(registration, stop) {
  const load = async () => {
    reload.disabled = true;
    const { waiting } = registration; // null if another tab has activated it
    if (waiting) {
      stop(); // Chromium keeps the old service worker for minutes if a request arrives while it ends
      waiting.postMessage("activate");
      await within(PATIENCE, controllerChange());
    }
    location.reload();
  };
  const reload = makeButton("reload", load);
  const line = make("p", { testid: "updated" }, make("span", { text: "updated" }), reload);
  const offer = () => {
    if (registration.waiting && navigator.serviceWorker.controller) showLine(line);
  };
  offer();
  registration.addEventListener("updatefound", () => {
    registration.installing?.addEventListener("statechange", offer);
  });
}

/** A button in the sidebar that removes the model and the page from the browser. */
function offerRemoval(registration) {
  const remove = async () => {
    const [title, detail] = [t("removeModelTitle"), t("removeModelDetail")];
    if (!(await confirm({ title, detail, ok: "remove" }))) return;
    const names = (await caches.keys()).filter((name) => name.endsWith(` ${SCOPE.pathname}`));
    await Promise.all(names.map((name) => caches.delete(name)));
    await registration.unregister();
    showLine(make("p", { testid: "removed" }, make("span", { text: "removed" })));
    button.disabled = true;
  };
  const button = makeButton("removeModel", remove, { kind: "danger" });
  byId("delete-all").before(button);
}
