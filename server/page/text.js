/** Every text of the interface, in Japanese and English, and the language that is shown. */

const NAMES = ["ja", "en"];

// Each text as [Japanese, English]; a function fills in values.
const TEXTS = {
  language_ja: ["日本語", "日本語"],
  language_en: ["English", "English"],

  skip: ["入力欄へ", "Skip to the message box"],
  menu: ["会話一覧", "Conversations"],
  close: ["閉じる", "Close"],
  cancel: ["キャンセル", "Cancel"],
  settings: ["設定", "Settings"],
  conversations: ["会話の一覧", "List of conversations"],
  create: ["新しい会話", "New conversation"],
  untitled: ["新しい会話", "New conversation"],
  rename: ["名前を変更", "Rename"],
  renameOf: [(title) => `「${title}」の名前を変更`, (title) => `Rename “${title}”`],
  renameTitle: ["会話の名前", "Name of the conversation"],
  renameDetail: ["空にすると、最初のメッセージが名前になります。", "Leave it empty to use the first message."],
  save: ["保存", "Save"],
  remove: ["削除", "Delete"],
  removeOf: [(title) => `「${title}」を削除`, (title) => `Delete “${title}”`],
  removeTitle: ["会話を削除しますか？", "Delete this conversation?"],
  removeDetail: [(title) => `「${title}」は元に戻せません。`, (title) => `“${title}” cannot be brought back.`],
  removeAll: ["すべて削除", "Delete all"],
  removeAllTitle: ["すべての会話を削除しますか？", "Delete all conversations?"],
  removeAllDetail: [
    (count) => `${count} 件の会話は元に戻せません。`,
    (count) => `${count} conversations cannot be brought back.`,
  ],
  model: [
    (id, precision, context) => `${id}（${precision}、最大 ${context} トークン）`,
    (id, precision, context) => `${id} (${precision}, up to ${context} tokens)`,
  ],

  messages: ["会話", "Conversation"],
  message: ["メッセージ", "Message"],
  hint_enter: ["メッセージ（Enterで送信）", "Message (Enter sends)"],
  hint_mod: ["メッセージ（Ctrl/⌘+Enterで送信）", "Message (Ctrl/⌘+Enter sends)"],
  empty: [
    "メッセージを送ってみましょう。会話はこのブラウザの中だけに保存されます。",
    "Send a message. Conversations are kept in this browser only.",
  ],
  send: ["送信", "Send"],
  stop: ["停止", "Stop"],
  user: ["あなた", "You"],
  assistant: ["一寸", "issun"],
  copy: ["コピー", "Copy"],
  copied: ["コピーしました", "Copied"],
  notCopied: ["コピーできませんでした", "Could not copy"],
  edit: ["編集", "Edit"],
  editing: [
    "メッセージを編集しています。送信すると、これより後は置き換わります。",
    "Editing a message. Sending replaces it and all that follows.",
  ],
  regenerate: ["再生成", "Regenerate"],
  retry: ["再試行", "Try again"],
  reset: ["会話をリセット", "Reset conversation"],
  resetDone: ["会話をリセットしました。", "The conversation was reset."],
  undo: ["元に戻す", "Undo"],
  toBottom: ["最新へ", "To the latest"],

  state_stopped: ["停止しました", "Stopped"],
  state_partial: ["答えは途中までです", "Unfinished answer"],
  state_length: ["最大の長さに達したので、ここで終わりました", "Ended here: the longest length was reached"],
  state_error: ["エラーのため途中で終わりました", "Ended early by an error"],
  state_empty: ["答えは空でした", "The answer was empty"],
  state_unanswered: ["答えがないので、モデルには送られません", "Has no answer, so it is not sent to the model"],
  unanswered: ["まだ答えがありません。", "No answer yet."],
  stopped: ["停止しました", "Stopped"],

  ready: ["準備ができています", "Ready"],
  offline: ["サーバーに接続できません", "Cannot reach the server"],
  queued: ["順番を待っています…", "Waiting for a turn…"],
  thinking: ["考え中…", "Thinking…"],
  thinkingRead: [
    (read, all) => `考え中… ${all} トークン中 ${read} を読みました`,
    (read, all) => `Thinking… ${read} of ${all} tokens read`,
  ],
  answering: ["答えています…", "Answering…"],
  answeringElsewhere: [(title) => `「${title}」に答えています…`, (title) => `Answering in “${title}”…`],
  answeredElsewhere: [(title) => `「${title}」の答えができました`, (title) => `The answer in “${title}” is ready`],
  running: ["回答中", "answering"],
  speed: [(number) => `${number} トークン/秒`, (number) => `${number} tokens/s`],
  memory: [(size) => `メモリ ${size}`, (size) => `Memory ${size}`],

  dropped: [
    (count) => `古い会話 ${count} 往復はモデルに送られませんでした`,
    (count) => `${count} old ${count === 1 ? "turn was" : "turns were"} not sent to the model`,
  ],
  blocked: [
    "このブラウザでは保存が許可されていません。会話はページを閉じると消えます。",
    "This browser does not allow storage. Conversations are lost when the page is closed.",
  ],
  full: [
    "ブラウザの保存領域に書き込めません（容量不足など）。保存できない内容はページを閉じると消えます。不要な会話を削除してください。",
    "The browser's storage cannot be written, it may be full. What is not saved is lost when the page is closed. Delete conversations you do not need.",
  ],
  broken: [
    (count) => `壊れていて読めない会話が ${count} 件あります。「すべて削除」で消せます。`,
    (count) => `${count} saved conversation(s) cannot be read. “Delete all” removes them.`,
  ],
  goneElsewhere: ["この会話は別のタブで削除されました。", "This conversation was deleted in another tab."],

  keyTitle: ["サーバーの鍵（APIキー）", "Key of the server (API key)"],
  keyDetail: [
    "このサーバーは鍵を求めています。鍵はこのタブを閉じるまで保存されます。",
    "This server asks for a key. It is kept until this tab is closed.",
  ],
  keyWrong: ["鍵が違います。もう一度入力してください。", "The key is wrong. Please enter it again."],
  error400: ["リクエストが受け付けられませんでした。", "The request was not accepted."],
  error401: ["サーバーの鍵が必要です。", "The server wants a key."],
  error403: ["このサーバーを使うことが許可されていません。", "This server may not be used from here."],
  error404: ["モデルが見つかりません。", "The model was not found."],
  error413: ["メッセージが長すぎます。", "The message is too long."],
  error429: [
    ({ seconds }) => `混み合っています。${seconds === null ? "少し" : `${seconds} 秒ほど`}待って再試行してください。`,
    ({ seconds }) => `The server is busy. Try again in ${seconds === null ? "a moment" : `about ${seconds} s`}.`,
  ],
  error503: ["サーバーは今答えられません。", "The server cannot answer now."],
  errorOther: [({ status }) => `サーバーのエラーです（${status}）。`, ({ status }) => `Error of the server (${status}).`],
  errorMidway: ["答えの途中でエラーが起きました。", "An error came in the middle of the answer."],
  errorCut: ["接続が途中で切れました。", "The connection was cut."],
  errorUnreachable: [
    "サーバーに接続できません。issun serve が動いているか確かめてください。",
    "Cannot reach the server. Is issun serve running?",
  ],
  errorUnexpected: ["予期しないエラーが起きました。", "An unexpected error came up."],

  role: ["役割", "Role"],
  roleText: ["役割の文", "Text of the role"],
  roleHint: ["例: あなたは物知りな博士です。やさしく答えてください。", "In Japanese, for example: あなたは物知りな博士です。"],
  roleNext: ["役割の変更は次のメッセージから使われます。", "The new role is used from the next message."],
  role_none: ["なし", "None"],
  role_mascot: ["マスコット（なのだ）", "Mascot (nanoda)"],
  role_polite: ["丁寧なアシスタント", "Polite assistant"],
  role_kansai: ["関西弁", "Kansai dialect"],
  role_own: ["自分で書く", "Own text"],

  defaultIs: [(value) => `初期値: ${value}`, (value) => `Default: ${value}`],
  allDefaults: ["すべて初期値に戻す", "All to their defaults"],
  range: [(min, max) => `${min} から ${max} までの数を入れてください。`, (min, max) => `Enter a number from ${min} to ${max}.`],
  rangeWhole: [
    (min, max) => `${min} から ${max} までの整数を入れてください。`,
    (min, max) => `Enter a whole number from ${min} to ${max}.`,
  ],
  language: ["言語（Language）", "Language（言語）"],
  languageHelp: ["画面の言葉です。答えの言葉は変わりません。", "Of this page; the answers stay as they are."],
  theme: ["配色", "Theme"],
  themeHelp: ["「自動」は端末の設定に従います。", "“Automatic” follows the device."],
  theme_auto: ["自動", "Automatic"],
  theme_light: ["明るい", "Light"],
  theme_dark: ["暗い", "Dark"],
  enter: ["Enterキー", "Enter key"],
  enterHelp: [
    "Shift+Enterはいつも改行です。変換中のEnterでは送信しません。",
    "Shift+Enter is always a new line. Enter never sends while an input method is converting.",
  ],
  enter_enter: ["Enterで送信", "Enter sends"],
  enter_mod: ["Ctrl（⌘）+Enterで送信（Enterは改行）", "Ctrl (⌘) + Enter sends (Enter: new line)"],
  temperature: ["温度（temperature）", "Temperature"],
  temperatureHelp: [
    "大きいほど多彩で、小さいほど手堅い答えになります。0 なら毎回同じ答えです。",
    "Higher is more varied, lower more careful. 0 always gives the same answer.",
  ],
  top_p: ["top_p", "top_p"],
  top_pHelp: [
    "確率の合計がこの値になるまでの、上位の言葉から選びます。1 なら制限しません。",
    "Choose among the likeliest tokens that together reach this probability. 1: no limit.",
  ],
  top_k: ["top_k", "top_k"],
  top_kHelp: ["上位この個数の言葉から選びます。0 なら制限しません。", "Choose among this many likeliest tokens. 0: no limit."],
  min_p: ["min_p", "min_p"],
  min_pHelp: [
    "最も確からしい言葉の確率の、この割合に満たない言葉を除きます。0 なら除きません。",
    "Leave out tokens below this share of the likeliest one's probability. 0: none.",
  ],
  repetition_penalty: ["繰り返しの抑制（repetition_penalty）", "Repetition penalty"],
  repetition_penaltyHelp: [
    "1 より大きいと、同じ言葉を繰り返しにくくなります。1 なら抑えません。",
    "Above 1, words are repeated less. 1: off.",
  ],
  max_tokens: ["答えの最大の長さ（max_tokens）", "Longest answer (max_tokens)"],
  max_tokensHelp: ["答えはこのトークン数までで終わります。", "An answer ends at this number of tokens."],
  seed: ["乱数の種（seed）", "Seed"],
  seedHelp: [
    "数を決めると、同じ会話と設定では同じ答えになります（再生成でも）。",
    "With a number, the same conversation and settings give the same answer, also when regenerated.",
  ],
  seedDefault: ["なし（毎回変わる）", "none (differs every time)"],
  modelDefault: ["モデルの値", "the model's value"],
};

let index = 0;

/** Show texts in `name`: ja or en. */
export function setLanguage(name) {
  index = Math.max(0, NAMES.indexOf(name));
  document.documentElement.lang = NAMES[index];
}

/** The text `key` in the language that is shown. */
export function t(key, ...values) {
  const text = TEXTS[key][index];
  return typeof text === "function" ? text(...values) : text;
}

/** Whether there is a text `key`. */
export const hasText = (key) => Object.hasOwn(TEXTS, key);

/** `value` as the language writes numbers, with `digits` decimals. */
export function number(value, digits = 0) {
  const options = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  return new Intl.NumberFormat(NAMES[index], options).format(value);
}

/** Write the texts that the elements under `root` name in data-text, -label and -placeholder. */
export function fill(root) {
  for (const element of root.querySelectorAll("[data-text]")) element.textContent = t(element.dataset.text);
  for (const element of root.querySelectorAll("[data-label]")) element.ariaLabel = t(element.dataset.label);
  for (const element of root.querySelectorAll("[data-placeholder]")) {
    element.placeholder = t(element.dataset.placeholder);
  }
}
