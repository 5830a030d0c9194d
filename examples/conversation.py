"""A conversation with a role: the model remembers what was said and keeps its way of speaking."""

from issun.runtime import Conversation, Model, SamplingParams

QUESTIONS = ("こんにちは!", "日本で一番広い湖は?", "20ひく7は?", "最初の質問は何ですか?")


def main() -> None:
    with Model.load() as model:
        # The role is a text in your own words. It stays when old turns have to make room.
        chat = Conversation(
            model,
            role="あなたは侍です。侍のように話してください。",
            params=SamplingParams(temperature=0),
        )
        for question in QUESTIONS:
            print(f"> {question}")
            # `reply` gives the whole answer; `stream` gives it piece by piece.
            print(chat.reply(question).text)

        # A turn can be taken back, as if it had never happened.
        taken_back = chat.undo()
        print(f"taken back: {taken_back.message}")

        # chat.save("talk.json") keeps the conversation for chat.load("talk.json");
        # chat.reset() forgets all turns, chat.turns lists them.
        print(f"{len(chat.turns)} turns are left")


if __name__ == "__main__":
    main()
