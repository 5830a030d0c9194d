/** Measures a site's engine in a worker of its own, and sends what it found to the server. */

const worker = "document" in globalThis ? new Worker(import.meta.url, { type: "module" }) : null;
if (worker) {
  const settings = Object.fromEntries(new URLSearchParams(location.search));
  const send = (result) => fetch("result", { method: "POST", body: JSON.stringify(result) });
  worker.onmessage = ({ data }) => send(data);
  worker.onerror = ({ message }) => send({ error: message });
  worker.postMessage(settings);
} else {
  onmessage = async ({ data }) => {
    try {
      const { open } = data.engine === "transformers" ? await import("./transformers.mjs") : { open: openSite };
      postMessage(await measure(open, Number(data.threads), Number(data.tokens), Number(data.rounds)));
    } catch (error) {
      postMessage({ error: String(error?.stack ?? error) });
    }
  };
}

/** The site's engine. @param {number} threads */
async function openSite(threads) {
  const { memoryBytes, openModel } = await import("./engine/open.mjs");
  const { model } = await openModel(new URL("./", import.meta.url), { threads });
  return {
    pieces: model.manifest.tokens.pieces,
    memoryBytes,
    prefill: (ids) => model.decoder.prefill(ids, async () => true),
    step: (id) => model.decoder.step([id]),
  };
}

/** Seconds of opening, of prefill and of decoding `tokens` tokens after it, one of each per round. */
async function measure(open, threads, tokens, rounds) {
  const began = performance.now();
  const engine = await open(threads);
  const found = { open: [(performance.now() - began) / 1000], prefill: [], decode: [] };
  for (let round = 0; round <= rounds; round++) {
    // Another first id, so that nothing of the round before is reused.
    const ids = Array.from({ length: tokens }, (_, i) => 10 + ((round * 97 + i * 31) % (engine.pieces - 10)));
    const start = performance.now();
    await engine.prefill(ids);
    const read = performance.now();
    for (const id of ids) await engine.step(id);
    if (!round) continue; // a warm-up
    found.prefill.push((read - start) / 1000);
    found.decode.push((performance.now() - read) / 1000);
  }
  return { ...found, memory_bytes: engine.memoryBytes(), isolated: crossOriginIsolated };
}
