/** Lines of the site above the messages: the download, an update, storage that is refused. */

import { byId, make } from "./dom.js";
import { number, t } from "./text.js";

const box = make("div", { className: "notices", testid: "site" });
const bar = make("progress", { max: 1 });
const amount = make("span");
const download = make("p", { testid: "download" }, amount, bar);

/** Show a line; its elements know their texts. */
export function showLine(line) {
  if (!box.isConnected) byId("notice").before(box);
  if (line.parentElement !== box) box.append(line);
}

/** Show `progress` of the download, bytes done and in total; null when it has ended. */
export function showDownload(progress) {
  if (!progress || progress.done === progress.total) {
    download.remove();
    return;
  }
  showLine(download);
  const [done, total] = [progress.done, progress.total].map((bytes) => number(bytes / 1e6, 1));
  amount.textContent = t("downloading", { done, total });
  bar.value = progress.done / progress.total;
  bar.ariaLabel = t("downloadingLabel");
}
