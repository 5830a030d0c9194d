/** Parses server-sent events: yields the data of each event of a byte stream. */

// The decoder is stateful, so characters split between two reads are decoded correctly.
export async function* readEvents(stream) {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let held = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      held += done ? decoder.decode() : decoder.decode(value, { stream: true });
      const blocks = held.split(/\r?\n\r?\n/);
      held = done ? "" : blocks.pop();
      for (const block of blocks) {
        const data = dataOf(block);
        if (data !== "") yield data;
      }
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function dataOf(block) {
  return block
    .split(/\r?\n/)
    .filter((line) => line.startsWith("data:"))
    .map((line) => line.slice(5).trimStart())
    .join("\n");
}
