"""Streaming: print an answer as it is written, and stop when you have seen enough."""

from issun.runtime import Model, SamplingParams

TEXT = "太郎さんは今日、店で青い傘を買いました。"


def main() -> None:
    with Model.load() as model:
        # A question about a text: the text is the `input` of the instruction.
        prompt = model.prompt("太郎さんは何を買いましたか?", TEXT)
        stream = model.stream(prompt, SamplingParams(temperature=0))
        for segment in stream:
            # A segment is the text that one more token completed; it never holds half a character.
            print(segment.text, end="", flush=True)
        print()

        # `cancel` ends an answer early and keeps what has come. It may be called from another
        # thread, or from a signal handler for Ctrl-C.
        stream = model.stream(model.prompt("あなたは誰ですか?"), SamplingParams(temperature=0))
        for count, segment in enumerate(stream, start=1):
            print(segment.text, end="", flush=True)
            if count == 5:
                stream.cancel()
        completion = stream.finish()
        print(f" … ({completion.finish_reason} after {len(completion.ids)} tokens)")


if __name__ == "__main__":
    main()
