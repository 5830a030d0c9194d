"""Your first answer: open a model, ask it one question, print what it says."""

from dataclasses import replace

from issun.runtime import Model


def main() -> None:
    # Without a path this opens the small model inside the package.
    # Model.load("b8") opens a bundle that `issun export` has written to the folder b8.
    with Model.load() as model:
        # `prompt` puts the question into the format that the model was trained on.
        prompt = model.prompt("日本で一番高い山は?")

        # Each bundle has default settings; temperature 0 takes the likeliest token every time.
        params = replace(model.default_params, temperature=0)

        answer = model.generate(prompt, params)
        print(answer.text)
        print(f"({answer.timings.new_tokens} tokens, ended by {answer.finish_reason})")


if __name__ == "__main__":
    main()
