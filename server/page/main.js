/** The chat page: connects its parts and renders their state. */

import { Answers } from "./answers.js";
import { Api } from "./api.js";
import { Chat } from "./chat.js";
import { Compose } from "./compose.js";
import { titleOf } from "./conversation.js";
import { askText, prepareDialog } from "./dialogs.js";
import { byId, copyText } from "./dom.js";
import { Drawer } from "./drawer.js";
import { List } from "./list.js";
import { Messages } from "./messages.js";
import { Notices } from "./notices.js";
import { RoleBar } from "./rolebar.js";
import { Follow } from "./scroll.js";
import { Settings } from "./settings.js";
import { SettingsBox } from "./settingsbox.js";
import { Status } from "./status.js";
import { openStorage, Store } from "./store.js";
import { fill, setLanguage, t } from "./text.js";

const COPIED = 1500; // ms for which a button shows that it has copied

const local = openStorage("localStorage");
const session = openStorage("sessionStorage");
const notices = new Notices(byId("notice"), () => compose.focus());
const settings = new Settings(local, { onChange: applySettings, trouble: showTrouble });
setLanguage(settings.get("language"));

const store = new Store(local, showTrouble);
const api = new Api(session, askKey);
const answers = new Answers({ api, store, settings, onChange: render, onText: showProgress });
const compose = new Compose({
  onSend: () => chat.send(),
  onStop: () => answers.stop(),
  onCancel: () => chat.cancelEdit(),
});
const follow = new Follow(byId("messages"), byId("to-bottom"));
const chat = new Chat(session, { store, answers, compose, notices, follow, render, announce });
const messages = new Messages(byId("messages"), {
  copy,
  edit: (message) => chat.edit(message),
  regenerate: () => chat.again(),
  retry: () => chat.again(),
});
const list = new List(byId("conversation-list"), {
  open: (conversation) => leaveDrawer(() => chat.open(conversation)),
  rename: (conversation) => chat.rename(conversation),
  remove: (conversation) => chat.remove(conversation),
});
const roles = new RoleBar((change) => chat.setRole(change));
const status = new Status();
const drawer = new Drawer();
const settingsBox = new SettingsBox(settings);
let model = null;
let modelWanted = true;

/** Render everything. */
function render() {
  const { current, editing } = chat;
  const run = answers.running;
  const here = run?.conversation === current;
  const title = titleOf(current) ?? t("untitled");
  document.title = `${title} - issun`;
  byId("title").textContent = title;
  list.render({ conversations: store.all, current, running: run?.conversation });
  roles.render(current.role, current.messages.length);
  messages.render({ messages: current.messages, run, here, failure: answers.failure(current), editing });
  compose.render({ running: run !== null, editing: editing !== null });
  renderStatus();
  follow.settle();
}

function renderStatus() {
  const run = answers.running;
  status.render({ run, here: run?.conversation === chat.current, speed: answers.speed });
}

/** Render a new part of the answer. */
function showProgress() {
  messages.showProgress(answers.running, () => {
    renderStatus();
    follow.settle();
  });
}

function showTrouble(kind, count) {
  if (count > 0) notices.show(kind, { values: { count } });
  else notices.hide(kind);
}

function applySettings() {
  setLanguage(settings.get("language"));
  document.documentElement.dataset.theme = settings.get("theme");
  compose.setMode(settings.get("enter"));
  fill(document);
  notices.translate();
  renderModel();
  render();
}

function renderModel() {
  settingsBox.render(model);
  const { precision, context } = model?.issun ?? {};
  byId("model").textContent = model ? t("model", { id: model.id, precision, context }) : "";
}

async function loadModel() {
  modelWanted = false;
  try {
    model = await api.model();
    renderModel();
  } catch (error) {
    modelWanted = error.status !== 401; // do not ask for the key again and again
  }
}

/** Announce `text` to screen readers. */
function announce(text) {
  byId("announcer").textContent = text;
}

async function copy(message, button) {
  button.textContent = t((await copyText(message.content)) ? "copied" : "notCopied");
  announce(button.textContent);
  setTimeout(() => {
    button.textContent = t("copy");
  }, COPIED);
}

async function askKey(wrong) {
  const detail = t(wrong ? "keyWrong" : "keyDetail");
  const key = await askText({ title: t("keyTitle"), detail, ok: "save", type: "password" });
  modelWanted = model === null && Boolean(key);
  return key;
}

function leaveDrawer(then) {
  drawer.close();
  then();
  compose.focus();
}

prepareDialog();
byId("new-conversation").addEventListener("click", () => leaveDrawer(() => chat.create()));
byId("delete-all").addEventListener("click", () => chat.removeAll());
byId("reset").addEventListener("click", () => chat.reset());
window.addEventListener("storage", ({ key, storageArea }) => {
  if (storageArea !== local) return;
  store.takeOver(key);
  settings.takeOver(key);
  const { current } = chat;
  chat.refresh();
  if (chat.current !== current) notices.show("goneElsewhere");
});
// If the page is closed during an answer, its text so far is saved.
window.addEventListener("pagehide", () => answers.keep());

chat.begin();
applySettings();
compose.focus();
status.watch(api, (online) => {
  if (online && modelWanted) loadModel();
  renderStatus();
});
