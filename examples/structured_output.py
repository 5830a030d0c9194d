"""Structured output: JSON that follows a schema, a choice, a number.

Constraints need one more package: pip install "issun[server]"
"""

import json
from dataclasses import replace

from issun.runtime import Model, SamplingParams
from issun.runtime.filling.fill import compile_schema, fill

CONTINENTS = ["アジア", "アフリカ", "ヨーロッパ", "北アメリカ", "南アメリカ", "オセアニア"]
SCHEMA = {
    "type": "object",
    "properties": {"首都": {"type": "string"}, "大陸": {"enum": CONTINENTS}},
    "required": ["首都", "大陸"],
    "additionalProperties": False,
}


def main() -> None:
    greedy = SamplingParams(temperature=0)
    with Model.load() as model:
        # One of several texts: the model cannot answer anything else.
        one_of = replace(greedy, constraint=model.constraints.choices(CONTINENTS))
        print(model.generate(model.prompt("ペルーはどの大陸にありますか?"), one_of).text)

        # A regular expression, so that the number can be read out of the answer.
        total = replace(greedy, constraint=model.constraints.regex("12\\+9は[0-9]+です。"))
        answer = model.generate(model.prompt("12たす9は?"), total).text
        print(int(answer.removeprefix("12+9は").removesuffix("です。")))

        # JSON: issun writes the braces and the names, and asks the model for each value.
        compiled = compile_schema(model, SCHEMA, max_tokens=100)
        if compiled is None:
            raise SystemExit("The schema leaves its structure open.")
        for country in ("フランス", "ケニア"):
            question = f"{country}について教えてください。"

            def make_prompt(line: str, question: str = question) -> list[int]:
                return model.prompt(f"{question}\n{line}")

            filled = fill(model, compiled, make_prompt, question, greedy).finish()
            print(country, json.loads(filled.text))


if __name__ == "__main__":
    main()
