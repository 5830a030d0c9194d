/** The preset roles, as the Japanese texts in the prompt. */

const TEXTS = {
  none: "",
  mascot: "あなたは「いっすん」です。語尾に「なのだ」を付けて話してください。",
  polite: "あなたは親切なアシスタントです。丁寧に答えてください。",
  kansai: "あなたは「いっすん」です。関西弁で話してください。",
  friend: "あなたは「いっすん」です。友だちのように話してください。",
  samurai: "あなたは「いっすん」という侍です。語尾に「ござる」を付けてください。",
  own: null,
};

export const ROLES = Object.keys(TEXTS);

/** The text of `role`, which has a preset's name and the user's own text. */
export const roleText = ({ preset, text }) => TEXTS[preset] ?? text;
