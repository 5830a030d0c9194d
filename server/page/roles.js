/** The roles that a conversation can have, as the Japanese text that the model is given. */

const TEXTS = {
  none: "",
  mascot: "あなたは「いっすん」です。語尾に「なのだ」を付けて話してください。",
  polite: "あなたは親切なアシスタントです。丁寧に答えてください。",
  kansai: "あなたは「いっすん」です。関西弁で話してください。",
  own: null,
};

export const ROLES = Object.keys(TEXTS);

/** The text of `role`, which holds the name of a preset and the reader's own text. */
export const roleText = ({ preset, text }) => TEXTS[preset] ?? text;
