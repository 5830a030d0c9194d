"""Errors of the command line, of values, and of reading and answering."""

MESSAGES: dict[str, str] = {
    # --- errors: the command line ---
    "error: {message}": "エラー: {message}",
    "Exporting needs {module}: pip install 'issun[export]'": (
        "書き出しには {module} が必要です: pip install 'issun[export]'"
    ),
    "{module} is not installed: pip install 'issun[{extra}]'": (
        "{module} がインストールされていません: pip install 'issun[{extra}]'"
    ),
    "Give --role or --role-file, not both.": "--role と --role-file は片方だけ指定してください。",
    "Only one of the instruction and --input can be read from stdin.": (
        "標準入力から読めるのは指示か --input の片方だけです。"
    ),
    "The argument {value!r} is not UTF-8.": "引数 {value!r} は UTF-8 ではありません。",
    "The text on stdin is not UTF-8 (byte {position}).": (
        "標準入力の文章は UTF-8 ではありません ({position} バイト目)。"
    ),
    "Line {number} on stdin is not UTF-8.": "標準入力の {number} 行目は UTF-8 ではありません。",
    "What was typed is not UTF-8; nothing was sent.": (
        "入力は UTF-8 ではないため、送信しませんでした。"
    ),
    "The text on stdin is {encoding}, not UTF-8. Convert it: `{fix}`": (
        "標準入力が UTF-8 ではなく {encoding} です。変換してください: `{fix}`"
    ),
    "Give the instruction once: as an argument, or with --instruction.": (
        "指示は引数か --instruction のどちらか一方で与えてください。"
    ),
    "There is no instruction: issun generate BUNDLE TEXT": (
        "指示がありません: issun generate BUNDLE 文"
    ),
    "[{path} is a file, and its name the instruction; - < FILE reads it]": (
        "[{path} はファイルですが、その名前を指示とします。内容を読むには - < FILE]"
    ),
    "{name} is no command; /help lists them. // sends a text that begins with a slash.": (
        "{name} という命令はありません。/help で一覧を表示します。"
        "スラッシュで始まる文は // に続けて送れます。"
    ),
    "{name} cannot be set; known are {known}.": "{name} は設定できません。設定できるのは {known}。",
    "{name} is {value!r}, it must be a number.": (
        "{name} は {value!r} ですが、数でなければなりません。"
    ),
    "Name a file: {usage}": "ファイル名を指定してください: {usage}",
    # --- errors: values ---
    "{name} is {value!r}, it must be a number with {bounds}.": (
        "{name} は {value!r} ですが、{bounds} を満たす数でなければなりません。"
    ),
    "{name} is {value!r}, it must be a whole number with {bounds}.": (
        "{name} は {value!r} ですが、{bounds} を満たす整数でなければなりません。"
    ),
    "{name} is {value!r}, it must be one of {known}.": (
        "{name} は {value!r} ですが、{known} のいずれかでなければなりません。"
    ),
    "stop is {value!r}, it must be a tuple of strings that are not empty.": (
        "stop は {value!r} ですが、空でない文字列のタプルでなければなりません。"
    ),
    "{name} holds the id {id}, which is out of range: the model has 0 to {last}.": (
        "{name} の ID {id} は範囲外です。モデルの ID は 0 から {last} です。"
    ),
    "threads is {value!r}, it must be from 1 to {limit}.": (
        "threads は {value!r} ですが、1 から {limit} でなければなりません。"
    ),
    "The Optimum route makes float32 and int8 with a float32 KV cache, not {value}.": (
        "Optimum 経由で作れるのは float32 の KV キャッシュを持つ float32 と int8 で、"
        "{value} は作れません。"
    ),
    "{path!r} is no path.": "{path!r} はパスではありません。",
    "logit_bias is {value!r}, it must map ids to numbers.": (
        "logit_bias は {value!r} ですが、ID から数への対応でなければなりません。"
    ),
    "min_new_tokens is {low}, it must be at most max_new_tokens, which is {high}.": (
        "min_new_tokens は {low} ですが、max_new_tokens の {high} 以下でなければなりません。"
    ),
    # --- errors: reading and answering ---
    "The instruction is empty.": "指示が空です。",
    "The message is empty.": "文が空です。",
    "The prompt is empty.": "プロンプトが空です。",
    "There is nothing to read: the list of ids is empty.": "読むものがありません。ID の列が空です。",
    "The id {id} is no token: the tokenizer has the ids 0 to {last}.": (
        "ID {id} はトークンではありません。トークナイザーの ID は 0 から {last} です。"
    ),
    "The id {id!r} is out of range: the model has the ids 0 to {last}.": (
        "ID {id!r} は範囲外です。モデルの ID は 0 から {last} です。"
    ),
    "The logits row {row} is out of range: there are the rows 0 to {last}.": (
        "logits の行 {row} は範囲外です。行は 0 から {last} です。"
    ),
    "{tokens:,} tokens do not fit into the context of {limit:,}.": (
        "{tokens:,} トークンは文脈長 {limit:,} に収まりません。"
    ),
    "The prompt has {tokens:,} tokens, which leaves no room for an answer in the context of "
    "{limit:,}.": (
        "プロンプトが {tokens:,} トークンあり、文脈長 {limit:,} に答えを書く余地がありません。"
    ),
    "The role and the message have {tokens:,} tokens and {reserve} are kept for the answer: "
    "{over:,} more than the context of {limit:,}. Shorten the role or the message.": (
        "役割と文で {tokens:,} トークン、答えのために {reserve} トークンを確保するので、"
        "文脈長 {limit:,} を {over:,} トークン超えます。役割か文を短くしてください。"
    ),
    "Cannot rewind to {length}: the cache holds {held} tokens.": (
        "{length} までは戻せません。キャッシュには {held} トークンあります。"
    ),
    "An Optimum graph serves 1 slot, not {slots}.": (
        "Optimum のグラフが扱えるのは 1 系列で、{slots} 系列は扱えません。"
    ),
    "The model gave logits that are not numbers (NaN).": ("モデルの出力が数ではありません (NaN)。"),
    "{name} takes more than {limit:g} s to compile: take a simpler one.": (
        "{name} の準備に {limit:g} 秒以上かかります。もっと簡単なものにしてください。"
    ),
    "--kv-memory is {asked:,.0f} MB, this computer has {total:,.0f} MB.": (
        "--kv-memory は {asked:,.0f} MB ですが、このコンピューターのメモリーは {total:,.0f} MB です。"
    ),
    "There is not enough memory to open {path}: close other programs, or take a smaller precision.": (
        "{path} を開くためのメモリーがありません。ほかのプログラムを閉じるか、より小さい精度にしてください。"
    ),
    "There is not enough memory for {tokens:,} more tokens: close other programs, or take a smaller "
    "precision or a shorter context.": (
        "あと {tokens:,} トークン分のメモリーがありません。ほかのプログラムを閉じるか、"
        "より小さい精度か短い会話にしてください。"
    ),
    "No token is left to draw: all are banned.": "選べるトークンがありません。すべて禁止されています。",
    "The model is answering: finish, cancel or close that stream first.": (
        "モデルは応答中です。先にその応答を終えるか、中断してください。"
    ),
    "The model is closed: load it again.": "モデルは閉じられています。読み込み直してください。",
    "The stream was closed before its end.": "応答は途中で閉じられました。",
    "There is no cut answer to continue.": "続きを書ける、途中で切れた答えはありません。",
    "There is no turn to take back.": "取り消すやりとりがありません。",
    "There is no turn to answer anew.": "答え直すやりとりがありません。",
    "{path} exists: choose another name.": "{path} はすでにあります。別の名前にしてください。",
    "{path} is no saved conversation: too large.": (
        "{path} は保存された会話ではありません。大きすぎます。"
    ),
    "{path} is no saved conversation: {reason}": "{path} は保存された会話ではありません: {reason}",
    "{path} has format {found}; this issun reads format {known}.": (
        "{path} の形式は {found} です。この issun が読めるのは形式 {known} です。"
    ),
    "There is no value in the answer to {line!r}.": "{line!r} への回答に値がありません。",
}
