/**
 * The service worker: keeps the page and the engine for use without a network, and adds the headers
 * that let threads share memory. The weights are stored by the page's worker (engine/weights.mjs).
 */

const FILES = new Map(Object.entries(/* path -> hash, by issun web */ {}));
const CACHE = `issun site ${new URL("./", self.location.href).pathname}`;
const LARGE = /\.wasm$/; // on the first visit the page waits for all others, and then asks for it
const HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
};

self.addEventListener("install", (event) => event.waitUntil(install()));
self.addEventListener("activate", (event) => event.waitUntil(activate()));
self.addEventListener("message", ({ data }) => {
  if (data === "activate") self.skipWaiting();
});
self.addEventListener("fetch", (event) => {
  const path = pathOf(event.request);
  if (FILES.has(path)) event.respondWith(answer(path));
});

async function install() {
  const first = !self.registration.active;
  const paths = [...FILES.keys()].filter((path) => !first || !LARGE.test(path));
  const cache = await caches.open(CACHE);
  await Promise.all(paths.map(async (path) => (await cache.match(keyOf(path))) ?? fetchInto(cache, path)));
  if (first) await self.skipWaiting();
}

async function activate() {
  const cache = await caches.open(CACHE);
  const kept = new Set([...FILES.keys()].map(keyOf));
  const old = (await cache.keys()).filter(({ url }) => !kept.has(url));
  await Promise.all(old.map((request) => cache.delete(request)));
  await self.clients.claim();
}

async function answer(path) {
  const cache = await caches.open(CACHE);
  const response = (await cache.match(keyOf(path))) ?? (await fetchInto(cache, path));
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  if (path.endsWith(".mjs")) headers.set("Content-Type", "text/javascript"); // which some servers do not know
  return new Response(response.body, { headers });
}

/** Fetch a file, whose content must be that of this version, and store it. */
async function fetchInto(cache, path) {
  const url = new URL(path, self.registration.scope);
  const response = await fetch(url, { cache: "no-cache", integrity: `sha256-${FILES.get(path)}` });
  if (!response.ok) throw new TypeError(`${path}: ${response.status}`);
  await cache.put(keyOf(path), response.clone()).catch(() => {}); // a full storage
  return response;
}

/** The path of a request within the site. */
function pathOf({ method, url }) {
  const { scope } = self.registration;
  if (method !== "GET" || !url.startsWith(scope)) return null;
  return new URL(url).pathname.slice(new URL(scope).pathname.length) || "index.html";
}

/** Where a file is stored: by its content, so that two versions do not mix. */
function keyOf(path) {
  return new URL(`${path}?${encodeURIComponent(FILES.get(path))}`, self.registration.scope).href;
}
