"""Help, and what `chat` says."""

MESSAGES: dict[str, str] = {
    # --- help ---
    "Run a Japanese GPT-2 model on this computer's CPU, offline.": (
        "日本語 GPT-2 モデルを、このパソコンの CPU だけで、オフラインで動かします。"
    ),
    "Turn a checkpoint into a quantized bundle.": "チェックポイントを量子化してバンドルにします。",
    "Talk with a bundle.": "バンドルと会話します。",
    "Answer one instruction.": "一つの指示に答えます。",
    "Say what a bundle is.": "バンドルの内容を表示します。",
    "Ask many times, and count the right answers.": "何度も質問し、正答の割合を数えます。",
    "Let a checkpoint learn from instructions and chats.": "指示や会話をチェックポイントに学習させます。",
    "Instructions or chats: JSON, JSONL, CSV, TSV, Parquet, or one record a line as .txt.": "指示や会話 (JSON・JSONL・CSV・TSV・Parquet)、または 1 行 1 レコードの .txt。",
    "Folder of the new run.": "学習結果を置く新しいフォルダー。",
    "How often all records are gone through.": "全レコードを学習する回数 (エポック数)。",
    "Learning rate, the same at every step.": "学習率。全ステップで一定です。",
    "Records in a batch of each device.": "装置ごとのバッチのレコード数。",
    "Batches in a step.": "1 ステップのバッチ数 (勾配の累積)。",
    "Longest record in tokens (default: the model's context).": "レコードの最大トークン数 (既定: モデルの文脈長)。",
    "Cut longer records instead of refusing them.": "長すぎるレコードを断らずに切り詰めます。",
    "The same seed gives the same run.": "同じ値なら同じ学習になります。",
    "Questions that each epoch is asked, as TOML.": "エポックごとに尋ねる質問の表 (TOML)。",
    "Ask each epoch questions.": "エポックごとに質問して評価します。",
    "Go on with the run in DIR, started alike.": "DIR にある同じ設定の学習を再開します。",
    "Print the version.": "版を表示します。",
    "Folder of a bundle (default: the embedded demonstration model).": (
        "バンドルのフォルダー（省略時は内蔵のデモ用モデル）。"
    ),
    "The embedded model is a small demonstration: Japanese and world geography, small sums, short "
    "texts. `issun export` makes a bundle of a large model.": (
        "内蔵モデルは小さなデモ用です。日本と世界の地理、簡単な計算、短い文章に答えます。"
        "大きなモデルのバンドルは `issun export` で作れます。"
    ),
    "Folder of a checkpoint, or a hub id.": "チェックポイントのフォルダー、または Hub の ID。",
    "Folder of the new bundle.": "作成するバンドルのフォルダー。",
    "KV cache type that is used by default: float32 or int8.": (
        "既定の KV キャッシュの型: float32 または int8。"
    ),
    "KV cache type, one that the bundle has: float32 or int8.": (
        "バンドルにある KV キャッシュの型: float32 または int8。"
    ),
    "issun, or optimum for the reference export.": "issun、または比較用の optimum。",
    "A prompt template as JSON.": "プロンプトのひな形 (JSON)。",
    "Revision on the hub.": "Hub のリビジョン。",
    "Token for the hub.": "Hub のトークン。",
    "Replace a bundle that is there.": "すでにあるバンドルを置き換えます。",
    "Threads (default: physical cores).": "スレッド数 (既定: 物理コア数)。",
    "Run a graph that issun does not write; only of somebody you trust.": (
        "issun が書き出したものではないグラフも実行します。信頼できる作成者のものに限ってください。"
    ),
    "Print speed and memory to stderr.": "速度とメモリーを標準エラーに表示します。",
    "0 takes the likeliest token. Default: the bundle's.": (
        "0 で最も確率の高い語を選びます。既定値はバンドルのもの。"
    ),
    "Keep the k likeliest tokens; 0 is off.": "確率の高い k 個だけを残します。0 で無効。",
    "Keep the likeliest tokens up to this probability.": (
        "確率の高い順に、合計がこの値になるまで残します。"
    ),
    "Keep tokens this likely beside the likeliest; 0 is off.": (
        "最大の確率に対してこの割合以上のものを残します。0 で無効。"
    ),
    "Keep the most typical tokens up to this probability.": (
        "典型的な順に、合計がこの値になるまで残します。"
    ),
    "Make tokens seen less likely; 1 is off.": "すでに出たトークンを出にくくします。1 で無効。",
    "Taken once from tokens in the answer; 0 is off.": (
        "答えに出たトークンから一度だけ引きます。0 で無効。"
    ),
    "Taken per occurrence in the answer; 0 is off.": ("答えに出た回数だけ引きます。0 で無効。"),
    "Never repeat this many tokens in a row; 0 is off.": (
        "この長さのトークン列を繰り返しません。0 で無効。"
    ),
    "The answer does not end before this many tokens.": "答えの最小トークン数。",
    "Longest answer in tokens.": "答えの最大トークン数。",
    r"End before this text (\n: a newline); may be given several times.": (
        r"この文字列の前で終えます (\n は改行)。複数回指定できます。"
    ),
    "The same seed gives the same answer.": "同じ値なら同じ答えになります。",
    "The instruction, alone or behind the bundle; - reads it from stdin.": "指示。単独で、またはバンドルの後に書きます。- なら標準入力から読みます。",
    "The instruction, as an option.": "指示をオプションで与えます。",
    "Text for it; - reads it from stdin.": "指示に添える文章。- なら標準入力から読みます。",
    "Print the answer and its figures as JSON.": "答えと計測値を JSON で表示します。",
    "Questions as TOML; by default two that come along.": (
        "質問の表 (TOML)。省略時は付属の 2 問。"
    ),
    "How often each question is asked.": "一つの質問を繰り返す回数。",
    "0 takes the likeliest token.": "0 で最も確率の高い語を選びます。",
    "The same seed gives the same answers.": "同じ値なら同じ答えになります。",
    "short (no history), chat, both of them, json or all.": (
        "short (履歴なし)、chat、both (その両方)、json、または all (すべて)。"
    ),
    "How many answers are written at a time.": "同時に生成する答えの数。",
    "Write all figures as JSON; - is stdout.": (
        "すべての結果を JSON で書き込みます。- なら標準出力。"
    ),
    "Print the whole manifest.": "マニフェスト全体を表示します。",
    "Compare every file with its hash.": "すべてのファイルをハッシュと照合します。",
    "Who the model is to be, in your words.": "モデルの役割を自由な言葉で。",
    "A role as lines (User:..., Assistant:...).": "役割の行 (User:…、Assistant:…) のファイル。",
    "Keep the messages you type, for the arrow keys.": (
        "入力した文を残し、矢印キーで呼び出せるようにします。"
    ),
    # --- chat ---
    "{name} ({precision}). /help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves.": (
        "{name} ({precision})。/help で命令の一覧、Ctrl-C で答えを中断、Ctrl-D で終了します。"
    ),
    "(Ctrl-D leaves)": "(Ctrl-D で終了します)",
    "(no role)": "(役割なし)",
    "[all turns forgotten]": "[会話を消しました]",
    "[new role, all turns forgotten]": "[役割を変え、会話を消しました]",
    "[taken back: {message}]": "[取り消しました: {message}]",
    "[saved: {path}]": "[保存しました: {path}]",
    "[and what /load need not read again: {path}, {size:,.1f} MB]": (
        "[/load で計算し直さずに済む KV キャッシュ: {path}、{size:,.1f} MB]"
    ),
    "[{count} turns read]": "[{count} 回分の会話を読み込みました]",
    "[{count} old turns left out to make room]": (
        "[長さに収めるため、古い会話 {count} 回分を省きました]"
    ),
    "[cut at {count} tokens; /continue goes on]": (
        "[{count} トークンで切りました。/continue で続きを書きます]"
    ),
    "[stopped before the answer began]": "[答えが始まる前に中断しました]",
    "[stopped; /continue goes on, /undo takes it back]": (
        "[中断しました。/continue で続き、/undo で取り消し]"
    ),
    "[{new} tokens, {speed:.1f} tokens/s, first token {first:.2f} s, prompt {prompt} tokens "
    "({reused} reused), memory {now:,.0f} MB, peak {peak:,.0f} MB]": (
        "[{new} トークン、毎秒 {speed:.1f} トークン、最初の語まで {first:.2f} 秒、"
        "プロンプト {prompt} トークン (再利用 {reused})、"
        "メモリー {now:,.0f} MB、最大 {peak:,.0f} MB]"
    ),
    "forget all turns": "会話を消す",
    "show the role, or take on another: /role TEXT": "役割を表示、または変更: /role 文",
    "take the last turn back": "直前のやりとりを取り消す",
    "answer the last message anew": "直前の文に答え直す",
    "go on with an answer that was cut": "途中で切れた答えの続きを書く",
    "write the conversation to a new file: /save FILE": "会話を新しいファイルに保存: /save ファイル",
    "read a conversation: /load FILE": "会話を読み込む: /load ファイル",
    "show or change the sampling: /set temperature 0.5": (
        "生成の設定を表示、または変更: /set temperature 0.5"
    ),
    "leave, as /exit and /bye do": "終了 (/exit や /bye も同じ)",
    "this list": "この一覧",
    "Enter sends, Alt-Enter begins a new line, Tab completes a command, Ctrl-C stops an answer, Ctrl-D leaves; // sends a text that begins with a slash.": "Enter で送信、Alt-Enter で改行、Tab で命令を補完、Ctrl-C で答えを中断、Ctrl-D で終了。// に続けるとスラッシュで始まる文を送れます。",
    "The history is not kept: {reason}": "入力の履歴は保存されません: {reason}",
}
