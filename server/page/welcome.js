/** What a conversation shows before its first message: the model, and questions to begin with. */

import { make } from "./dom.js";
import { t } from "./text.js";

// The questions are texts for the model, so that they are Japanese in every language of the page.
// The demonstration model can answer few questions, and these are among them.
const DEMONSTRATION = {
  mountain: "日本で一番高い山は?",
  capital: "フランスの首都は?",
  sum: "17足す8は?",
  who: "あなたは誰ですか?",
};
const GENERAL = {
  introduction: "自己紹介をしてください。",
  seasons: "日本の四季について教えてください。",
  breakfast: "簡単に作れる朝ごはんを考えてください。",
  advice: "早起きのこつを教えてください。",
};

export class Welcome {
  /** The element. */
  root;

  #ask;
  #model = make("p", { testid: "welcome-model" });
  #demonstration = makeDemonstration();
  #examples = make("div", { className: "examples" });

  /** `ask(question)` is called when the user chooses a question. */
  constructor(ask) {
    this.#ask = ask;
    const title = make("h2", { text: "welcome" });
    const local = make("p", { className: "small", text: "storedHere" });
    const parts = [title, this.#model, this.#demonstration, this.#examples, local];
    this.root = make("section", { className: "welcome", testid: "welcome" }, ...parts);
  }

  /** Describe `model`, which is null until it is known. */
  render(model) {
    const { precision, context, demonstration = false } = model?.issun ?? {};
    this.#model.textContent = model ? t("welcomeModel", { id: model.id, precision, context }) : "";
    this.#demonstration.hidden = !demonstration;
    const questions = model ? Object.entries(demonstration ? DEMONSTRATION : GENERAL) : [];
    this.#examples.replaceChildren(...questions.map((pair) => this.#example(...pair)));
  }

  #example(name, question) {
    const about = make("span", { className: "small", text: `example_${name}` });
    const text = make("span", { lang: "ja", textContent: question });
    const onclick = () => this.#ask(question);
    return make("button", { type: "button", testid: "example", onclick }, text, about);
  }
}

function makeDemonstration() {
  const lines = ["demonstrationCan", "demonstrationCannot"].map((text) => make("p", { text }));
  const title = make("h3", { text: "demonstration" });
  return make("div", { className: "demonstration", testid: "demonstration", hidden: true }, title, ...lines);
}
