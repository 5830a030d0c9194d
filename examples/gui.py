"""A window: ask, watch the answer come, stop it. It needs tkinter, which most Pythons have."""

import queue
import threading
import tkinter as tk

from issun.runtime import Conversation, Model, Stream


class Window(tk.Tk):
    def __init__(self, model: Model) -> None:
        super().__init__(className="issun")
        self.chat, self.pieces = Conversation(model), queue.SimpleQueue[str]()
        self.stream: Stream | None = None  # the answer that is being written
        self.text, self.entry = tk.Text(self), tk.Entry(self)
        self.button = tk.Button(self, text="停止", command=self.stop)
        for widget in (self.text, self.entry, self.button):
            widget.pack()
        self.entry.bind("<Return>", self.ask)
        self.show()

    def ask(self, _: object) -> None:
        if (question := self.entry.get().strip()) and not self.stream:
            self.entry.delete(0, "end")
            self.text.insert("end", f"> {question}\n")
            self.stream = self.chat.stream(question)
            # The model computes in a thread of its own, so that the window stays alive.
            self.thread = threading.Thread(target=self.read, args=[self.stream], daemon=True)
            self.thread.start()

    def read(self, stream: Stream) -> None:
        for segment in stream:
            self.pieces.put(segment.text)

    def show(self) -> None:
        # Only this thread may touch the window: it looks for new text 20 times a second.
        if self.stream and not self.thread.is_alive():
            self.stream = None
            self.pieces.put("\n")
        while not self.pieces.empty():
            self.text.insert("end", self.pieces.get())
        self.after(50, self.show)

    def stop(self) -> None:
        if self.stream:
            self.stream.cancel()  # what has come stays, in the conversation too


if __name__ == "__main__":
    Window(Model.load()).mainloop()
