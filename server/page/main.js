/** The chat page: connects its parts and renders their state. */

import { Answers } from "./answers.js";
import { Api } from "./api.js";
import { Chat } from "./chat.js";
import { Compose } from "./compose.js";
import { titleOf } from "./conversation.js";
import { copyWith } from "./copying.js";
import { askText, prepareDialog } from "./dialogs.js";
import { announce, byId } from "./dom.js";
import { List } from "./list.js";
import { Messages } from "./messages.js";
import { Notices } from "./notices.js";
import { RoleBar } from "./rolebar.js";
import { Follow } from "./scroll.js";
import { search } from "./search.js";
import { SearchBox } from "./searchbox.js";
import { Settings } from "./settings.js";
import { SettingsBox } from "./settingsbox.js";
import { Shortcuts } from "./shortcuts.js";
import { Sidebar } from "./sidebar.js";
import { Status } from "./status.js";
import { openStorage, Store } from "./store.js";
import { fill, setLanguage, t } from "./text.js";
import { TransferBox } from "./transferbox.js";
import { Welcome } from "./welcome.js";

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
  onRecall: () => chat.editLast(),
});
const follow = new Follow(byId("messages"), byId("to-bottom"));
const chat = new Chat(session, { store, answers, compose, notices, follow, render, announce });
const welcome = new Welcome((question) => chat.ask(question));
const messages = new Messages(byId("messages"), welcome.root, {
  copy: (message, button) => copyWith(button, message.content),
  edit: (message) => chat.edit(message),
  continue: () => chat.continue(),
  regenerate: () => chat.again(),
  retry: () => chat.retry(),
});
const list = new List(byId("conversation-list"), {
  open: (conversation, found) =>
    leaveDrawer(() => {
      chat.open(conversation);
      messages.reveal(found);
    }),
  rename: (conversation) => chat.rename(conversation),
  remove: (conversation) => chat.remove(conversation),
});
const roles = new RoleBar((change) => chat.setRole(change));
const status = new Status();
const sidebar = new Sidebar(local);
const settingsBox = new SettingsBox(settings);
const searchBox = new SearchBox({ onChange: renderList, onLeave: () => compose.focus() });
const shortcuts = new Shortcuts({
  create: () => leaveDrawer(() => create()),
  search: () => {
    sidebar.open();
    searchBox.focus();
  },
  stop: () => (answers.running ? void answers.stop() : false),
  toggleSidebar: () => sidebar.toggle(),
});
new TransferBox({
  store,
  current: () => chat.current,
  onImported: (conversations) => leaveDrawer(() => chat.import(conversations)),
  onError: (name) => leaveDrawer(() => notices.show("importFailed", { values: { name } })),
});
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
  byId("reset").disabled = current.messages.length === 0;
  renderList();
  roles.render(current.role, current.messages.length);
  messages.render({ messages: current.messages, run, here, failure: answers.failure(current), editing });
  compose.render({ running: run !== null, editing: editing !== null });
  renderStatus();
  follow.settle();
}

function renderList() {
  const found = search(store.all, searchBox.query, (conversation) => titleOf(conversation) ?? t("untitled"));
  list.render({ found, current: chat.current, running: answers.running?.conversation });
  byId("no-match").hidden = found.length > 0;
}

function renderStatus() {
  const run = answers.running;
  const { messages } = chat.current;
  const context = model?.issun?.context;
  status.render({ run, here: run?.conversation === chat.current, speed: answers.speed, messages, context });
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
  shortcuts.render(settings.get("enter"));
  fill(document);
  notices.translate();
  renderModel();
  render();
}

function renderModel() {
  settingsBox.render(model);
  welcome.render(model);
  const { precision, context } = model?.issun ?? {};
  byId("model").textContent = model ? t("model", { id: model.id, precision, context }) : "";
}

async function loadModel() {
  modelWanted = false;
  try {
    model = await api.model();
    renderModel();
    renderStatus();
  } catch (error) {
    modelWanted = error.status !== 401; // do not ask for the key again and again
  }
}

async function askKey(wrong) {
  const detail = t(wrong ? "keyWrong" : "keyDetail");
  const key = await askText({ title: t("keyTitle"), detail, ok: "save", type: "password" });
  modelWanted = model === null && Boolean(key);
  return key;
}

function create() {
  searchBox.clear(); // the new conversation would not be found
  chat.create();
}

function leaveDrawer(then) {
  sidebar.closeDrawer();
  then();
  compose.focus();
}

prepareDialog();
byId("new-conversation").addEventListener("click", () => leaveDrawer(() => create()));
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
window.addEventListener("languagechange", applySettings);
// If the page is closed during an answer, its text so far is saved.
window.addEventListener("pagehide", () => answers.keep());

chat.begin();
applySettings();
compose.focus();
status.watch(api, (online) => {
  if (online && modelWanted) loadModel();
  renderStatus();
});
