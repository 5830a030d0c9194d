/** The dialog that exports and imports conversations. */

import { titleOf } from "./conversation.js";
import { closeBy } from "./dialogs.js";
import { byId } from "./dom.js";
import { t } from "./text.js";
import { download, fromJson, toJson, toMarkdown } from "./transfer.js";

const KINDS = {
  markdown: { write: toMarkdown, extension: "md", type: "text/markdown" },
  json: { write: toJson, extension: "json", type: "application/json" },
};

export class TransferBox {
  #dialog = byId("transfer");
  #given;

  /** `given`: store, current() and the functions onImported(conversations, count) and onError(). */
  constructor(given) {
    this.#given = given;
    byId("open-transfer").addEventListener("click", () => this.#open());
    closeBy(this.#dialog, byId("transfer-close"));
    byId("export").addEventListener("click", () => this.#export());
    byId("choose-file").addEventListener("click", () => byId("import").click());
    byId("import").addEventListener("change", () => this.#import());
  }

  #open() {
    const hasCurrent = isWorthIt(this.#given.current());
    const hasAny = this.#given.store.all.some(isWorthIt);
    byId("export-current").disabled = !hasCurrent;
    byId(hasCurrent ? "export-current" : "export-all").checked = true;
    byId("export").disabled = !hasAny;
    this.#dialog.showModal();
  }

  #export() {
    const onlyCurrent = byId("export-current").checked;
    const { write, extension, type } = KINDS[byId("export-json").checked ? "json" : "markdown"];
    const chosen = onlyCurrent ? [this.#given.current()] : this.#given.store.all.filter(isWorthIt);
    const name = onlyCurrent ? nameOf(chosen[0]) : `issun-${new Date().toISOString().slice(0, 10)}`;
    download(`${name}.${extension}`, write(chosen), type);
    this.#dialog.close();
  }

  async #import() {
    const input = byId("import");
    const [file] = input.files;
    if (!file) return;
    this.#dialog.close();
    try {
      const conversations = fromJson(await file.text());
      this.#given.onImported(conversations);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      this.#given.onError(file.name);
    } finally {
      input.value = ""; // the same file may be chosen again
    }
  }
}

const isWorthIt = ({ messages }) => messages.length > 0;

// A title may have characters that a file system does not take.
function nameOf(conversation) {
  const title = (titleOf(conversation) ?? t("untitled")).replace(/[\s\u0000-\u001f\\/:*?"<>|.]+/g, " ").trim();
  return title || "issun";
}
