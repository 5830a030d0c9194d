"""The Japanese form of every message, by its English template."""

JAPANESE: dict[str, str] = {
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
    "Instructions or chats as JSON or JSONL, or one record a line as .txt.": "指示や会話の JSON・JSONL、または 1 行 1 レコードの .txt。",
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
    "The instruction; - reads it from stdin.": "指示。- なら標準入力から読みます。",
    "Text for it; - reads it from stdin.": "指示に添える文章。- なら標準入力から読みます。",
    "Print the answer and its figures as JSON.": "答えと計測値を JSON で表示します。",
    "Questions as TOML; by default two that come along.": (
        "質問の表 (TOML)。省略時は付属の 2 問。"
    ),
    "How often each question is asked.": "一つの質問を繰り返す回数。",
    "0 takes the likeliest token.": "0 で最も確率の高い語を選びます。",
    "The same seed gives the same answers.": "同じ値なら同じ答えになります。",
    "short (no history), chat or both.": "short (履歴なし)、chat、または both (両方)。",
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
    "this list": "この一覧",
    "Enter sends, Alt-Enter begins a new line, Ctrl-C stops an answer, Ctrl-D leaves.": (
        "Enter で送信、Alt-Enter で改行、Ctrl-C で答えを中断、Ctrl-D で終了します。"
    ),
    "The history is not kept: {reason}": "入力の履歴は保存されません: {reason}",
    # --- export and inspect ---
    "writing": "書き込み",
    "calibrating": "較正",
    "exporting with Optimum": "Optimum で書き出し",
    "hashing": "照合値の計算",
    "{output}: {precision}, {size:,.0f} MB, in {seconds:.1f} s. Next: issun chat {output}": (
        "{output}: {precision}、{size:,.0f} MB、{seconds:.1f} 秒。次は: issun chat {output}"
    ),
    "Put back {target}, which a killed export had set aside.": (
        "中断された書き出しが退避していた {target} を元に戻しました。"
    ),
    "Removed {partial}, left by an export that was killed.": (
        "中断された書き出しが残した {partial} を削除しました。"
    ),
    "Every file has the content that it was exported with.": (
        "すべてのファイルが書き出し時の内容と一致しています。"
    ),
    "bundle": "バンドル",
    "source": "元のモデル",
    "exporter": "書き出し",
    "network": "構造",
    "precision": "精度",
    "  linears": "  線形層",
    "  embedding": "  埋め込み",
    "  head": "  出力層",
    "KV cache": "KV キャッシュ",
    "tokenizer": "トークナイザー",
    "prompt": "プロンプト",
    "sampling": "生成の設定",
    "fidelity": "忠実度",
    # --- evaluate ---
    "At temperature 0 every answer is the same: each question is asked once.": (
        "temperature 0 では答えが変わらないので、質問は 1 回ずつです。"
    ),
    "[stopped: {rows} rows were done]": "[中断しました: {rows} 行が終わっていました]",
    "format  right   95 % interval    raw     question -> right word": (
        "形式    正答率  95 % 区間        含有率  質問 -> 正しい語"
    ),
    "{category}: {rate:.1%}": "{category}: {rate:.1%}",
    "mean of {rows} rows ({formats}): {rate:.1%}": "{rows} 行の平均 ({formats}): {rate:.1%}",
    "asking": "質問中",
    "A text like yours to calibrate on (default: a short one).": (
        "較正に使う、用途に近い文章（既定は付属の短いもの）"
    ),
    "Fit int4 weights to the text: better, and slower.": (
        "int4 の重みを文章に合わせて決める（より忠実、時間がかかる）"
    ),
    "GPTQ is for int4, not for {value}.": "GPTQ は int4 のためのもので、{value} には使えません。",
    "There is nothing to calibrate: that is for int8, int4 and the int8 KV cache of "
    "issun's own route.": (
        "較正するものがありません。issun の方式の int8、int4 と int8 の KV キャッシュのためのものです。"
    ),
    "reading, float32": "float32 で読み取り中",
    "reading, the bundle": "バンドルで読み取り中",
    "answering": "回答中",
    "{kind} KV cache beside {against} in float32, on {text} ({positions:,} tokens)": (
        "{kind} の KV キャッシュと float32 の {against} の比較、{text}（{positions:,} トークン）"
    ),
    "  perplexity      {perplexity:.3f} ± {error:.3f}, float32 {reference_perplexity:.3f}": (
        "  パープレキシティ {perplexity:.3f} ± {error:.3f}、float32 は {reference_perplexity:.3f}"
    ),
    "  ratio           {ratio:.5f} ± {ratio_error:.5f}": (
        "  その比           {ratio:.5f} ± {ratio_error:.5f}"
    ),
    "  KL divergence   mean {kl_mean:.5f}, median {kl_median:.5f}, 99 % below {kl_p99:.5f}": (
        "  KL ダイバージェンス 平均 {kl_mean:.5f}、中央値 {kl_median:.5f}、99 % が {kl_p99:.5f} 以下"
    ),
    "                  largest {kl_max:.5f}": "                   最大 {kl_max:.5f}",
    "  same choice     {agreement:.2%} of the tokens": (
        "  第一候補の一致   トークンの {agreement:.2%}"
    ),
    "  same answer     {identical:.0%} of {answers} for 100 tokens": (
        "  答えの一致       {answers} 個のうち {identical:.0%}（100 トークンまで）"
    ),
    "  KL over the {top:,} likeliest tokens and the rest as one": (
        "  KL は上位 {top:,} トークンと、残りを 1 つにまとめたもので計算"
    ),
    "  by position     KL       same choice": "  位置ごと        KL       第一候補の一致",
    "A text to read (default: one that comes along).": "読ませる文章（既定は付属のもの）",
    "Folder of a bundle.": "バンドルのフォルダー",
    "Greedy answers to compare.": "比べる答えの数（温度 0）",
    "Keep the figures in the bundle.": "結果をバンドルに記録する",
    "One KV cache type (default: all of the bundle).": "KV キャッシュの種類（既定はバンドルにある全部）",
    "Print all figures as JSON.": "すべての値を JSON で表示",
    "Say how far a bundle is from its checkpoint, and keep it.": (
        "元のチェックポイントとどれだけ違うかを測り、記録する"
    ),
    "The checkpoint that it was made from, or a float32 bundle.": (
        "元のチェックポイント、または float32 のバンドル"
    ),
    "The figures are not kept in {bundle}: {reason}": "結果を {bundle} に記録できません: {reason}",
    "The reference's logits take {needed:,} MB, and {free:,} MB may be used: take a shorter text.": (
        "比較元のロジットに {needed:,} MB 必要ですが、使えるのは {free:,} MB です。"
        "短い文章にしてください。"
    ),
    "The figures are not kept: {bundle} is another bundle by now.": (
        "{bundle} が別のバンドルに変わったため、結果は記録しません。"
    ),
    "The text has {tokens} tokens, it must have {least} or more.": (
        "文章が {tokens} トークンしかありません。{least} トークン以上必要です。"
    ),
    "{path} is no folder to write to: give --work.": (
        "{path} は書き込めるフォルダーではありません。--work で指定してください。"
    ),
    "{name} cannot be fitted to this text: export without --gptq, or with more text.": (
        "{name} をこの文章に合わせられません。--gptq なしで、またはもっと長い文章で変換してください。"
    ),
    "The two models have different vocabularies.": "2 つのモデルの語彙が違います。",
    "Where temporary files go: they may be large.": "一時ファイルの置き場所（大きくなります）",
    "answers is {value!r}, it must be 0 or more.": "answers が {value!r} です。0 以上にしてください。",
    "{path} holds no text.": "{path} には文章がありません。",
    "{path} is {precision}: compare with the checkpoint, or with a float32 bundle.": (
        "{path} は {precision} です。元のチェックポイントか float32 のバンドルと比べてください。"
    ),
    # --- errors: the command line ---
    "error: {message}": "エラー: {message}",
    "Exporting needs {module}: pip install 'issun[export]'": (
        "書き出しには {module} が必要です: pip install 'issun[export]'"
    ),
    "Give --role or --role-file, not both.": "--role と --role-file は片方だけ指定してください。",
    "Only one of --instruction and --input can be read from stdin.": (
        "標準入力から読めるのは --instruction か --input の片方だけです。"
    ),
    "The argument {value!r} is not UTF-8.": "引数 {value!r} は UTF-8 ではありません。",
    "The text on stdin is not UTF-8 (byte {position}).": (
        "標準入力の文章は UTF-8 ではありません ({position} バイト目)。"
    ),
    "Line {number} on stdin is not UTF-8.": "標準入力の {number} 行目は UTF-8 ではありません。",
    "What was typed is not UTF-8; nothing was sent.": (
        "入力は UTF-8 ではないため、送信しませんでした。"
    ),
    "{name} is no command; /help lists them. A message may not begin with a slash.": (
        "{name} という命令はありません。/help で一覧を表示します。"
        "文の先頭にスラッシュは使えません。"
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
    # --- errors: bundles ---
    "There is no folder {folder}.": "フォルダー {folder} がありません。",
    "{folder} is not a bundle: it has no {name}. `issun export` makes a bundle from a "
    "checkpoint.": (
        "{folder} はバンドルではありません。{name} がありません。"
        "`issun export` でチェックポイントからバンドルを作れます。"
    ),
    "{folder} has no graph with a {kind} KV cache; it has {known}. Export it again with "
    "`--kv-cache {kind}`.": (
        "{folder} に {kind} の KV キャッシュのグラフはありません (あるのは {known})。"
        "`--kv-cache {kind}` を付けて書き出し直してください。"
    ),
    "{folder}: the manifest does not list {name}.": (
        "{folder}: マニフェストに {name} がありません。"
    ),
    "{folder}: the manifest has no graph for its KV cache type {kind}.": (
        "{folder}: マニフェストに KV キャッシュの型 {kind} のグラフがありません。"
    ),
    "{folder}: the manifest names {name!r}, which is not a file in the bundle.": (
        "{folder}: マニフェストの {name!r} はバンドル内のファイルではありません。"
    ),
    "{path} has format {found}, this issun reads up to format {known}: update issun.": (
        "{path} の形式は {found} です。この issun は形式 {known} まで読めます。"
        "issun を更新してください。"
    ),
    "{path} has {found:,} bytes where the manifest says {expected:,}: the file is damaged or was "
    "not copied whole.": (
        "{path} は {found:,} バイトですが、マニフェストでは {expected:,} バイトです。"
        "壊れているか、最後までコピーされていません。"
    ),
    "{path} is damaged ({reason}): export the bundle again.": (
        "{path} は壊れています ({reason})。バンドルを書き出し直してください。"
    ),
    "{path} is larger than a manifest can be.": "{path} はマニフェストとしては大きすぎます。",
    "{path} is missing or a link: export the bundle again, or copy it whole.": (
        "{path} がないか、リンクです。バンドルを書き出し直すか、全体をコピーしてください。"
    ),
    "{path} does not have the content that it was exported with.": (
        "{path} の内容が書き出し時と違います。"
    ),
    "{path} is not a SentencePiece model.": "{path} は SentencePiece のモデルではありません。",
    "ONNX Runtime cannot open {path}: {reason}": ("ONNX Runtime で {path} を開けません: {reason}"),
    "The manifest's default sampling is bad: {reason}": (
        "マニフェストの既定の生成設定が正しくありません: {reason}"
    ),
    "{folder}: the manifest does not fit the bundle: {faults}.": (
        "{folder}: マニフェストがバンドルと合いません: {faults}。"
    ),
    # --- errors: checkpoints ---
    "{path} cannot be read: {reason}": "{path} を読めません: {reason}",
    "{path} cannot be written: {reason}": "{path} に書き込めません: {reason}",
    "{path} is written, but not the KV cache {beside}: {reason}": (
        "{path} は保存しましたが、KV キャッシュ {beside} は書き込めませんでした: {reason}"
    ),
    "{path} is not a JSON object.": "{path} は JSON のオブジェクトではありません。",
    "{path}: {reason}": "{path}: {reason}",
    "{folder} has no config.json: it is no checkpoint.": (
        "{folder} に config.json がありません。チェックポイントではありません。"
    ),
    "{path}: the architecture is {found}; issun exports gpt2 (GPT2LMHeadModel).": (
        "{path}: 構造は {found} です。issun が書き出せるのは gpt2 (GPT2LMHeadModel) です。"
    ),
    "{path}: add_cross_attention is set; issun exports models without it.": (
        "{path}: add_cross_attention を持つモデルは書き出せません。"
    ),
    "{path}: n_embd {width} is not a multiple of n_head {heads}.": (
        "{path}: n_embd {width} が n_head {heads} の倍数ではありません。"
    ),
    "{path}: the activation {name!r} is unknown; known are {known}.": (
        "{path}: 活性化関数 {name!r} は使えません。使えるのは {known} です。"
    ),
    "{path}: {key} is {value!r}, it must be a whole number from 1 to {limit:,}.": (
        "{path}: {key} は {value!r} ですが、1 から {limit:,} の整数でなければなりません。"
    ),
    "{path}: {key} is {value!r}, it must be true or false.": (
        "{path}: {key} は {value!r} ですが、true か false でなければなりません。"
    ),
    "{path}: layer_norm_epsilon is {value!r}, it must be a number between 0 and 1.": (
        "{path}: layer_norm_epsilon は {value!r} ですが、0 と 1 の間の数でなければなりません。"
    ),
    "{folder} has no weights: expected {expected}.": (
        "{folder} に重みがありません。必要なのは {expected} です。"
    ),
    "{folder} lacks {names}, which {index} names.": (
        "{folder} に、{index} が挙げている {names} がありません。"
    ),
    "{path} has no weight_map.": "{path} に weight_map がありません。",
    "{path} names {name!r}, which is not in its folder.": (
        "{path} の {name!r} は同じフォルダーにありません。"
    ),
    "{folder} does not hold the weights that its config.json describes: {faults}{more}.": (
        "{folder} の重みが config.json と合いません: {faults}{more}。"
    ),
    "{folder} has no SentencePiece tokenizer: expected {names}.": (
        "{folder} に SentencePiece のトークナイザーがありません。必要なのは {names} です。"
    ),
    "{path} does not fit config.json: it has {pieces} pieces{beyond}; vocab_size is {rows}.": (
        "{path} が config.json と合いません: {pieces} 個{beyond}、vocab_size は {rows} です。"
    ),
    "{path} names no unknown token.": "{path} に未知語のトークンがありません。",
    "{path} became shorter while it was read.": "{path} は読んでいる間に短くなりました。",
    "{path} is damaged or was not downloaded whole: {reason}": (
        "{path} は壊れているか、最後までダウンロードされていません: {reason}"
    ),
    "{path} is a pickled checkpoint: reading it needs torch (`pip install torch`), a "
    "model.safetensors does not.": (
        "{path} は pickle 形式なので、読むには torch が必要です (`pip install torch`)。"
        "model.safetensors なら不要です。"
    ),
    "{path} is damaged, or holds more than weights and is refused: {reason}": (
        "{path} は壊れているか、重み以外のものを含むため拒否しました: {reason}"
    ),
    "{path} does not hold a table of tensors.": "{path} の中身がテンソルの表ではありません。",
    "{name} holds NaN or infinity.": "{name} に NaN または無限大があります。",
    "{path} is no template: {reason}": "{path} はひな形ではありません: {reason}",
    "The prompt template {name} does not work: {faults}. Mend it, or give another with "
    "`--template FILE`.": (
        "ひな形 {name} は使えません: {faults}。"
        "直すか、`--template FILE` で別のひな形を指定してください。"
    ),
    "{source} is a file; name the checkpoint's folder.": (
        "{source} はファイルです。チェックポイントのフォルダーを指定してください。"
    ),
    "There is no folder {source}, and it is no hub id (owner/name).": (
        "フォルダー {source} はなく、Hub の ID (owner/name) でもありません。"
    ),
    "There is no folder {repo}, the hub cannot be reached ({reason}), and the model is not in the "
    "hub's local cache: connect once, or name a folder.": (
        "フォルダー {repo} はなく、Hub に接続できず ({reason})、"
        "手元のキャッシュにもありません。一度接続するか、フォルダーを指定してください。"
    ),
    "The hub refuses {repo} at {revision}: {reason}": (
        "Hub が {repo} ({revision}) を拒否しました: {reason}"
    ),
    "Optimum cannot export {folder}: {reason}": "Optimum で {folder} を書き出せません: {reason}",
    "ONNX Runtime's quantizer has left {count} linears in float32: {names}.": (
        "ONNX Runtime の量子化で {count} 個の線形層が float32 のまま残りました: {names}。"
    ),
    "The Optimum route needs torch, transformers and optimum-onnx: `pip install "
    "'issun[optimum]'`.": (
        "Optimum 経由の書き出しには torch、transformers、optimum-onnx が必要です: "
        "`pip install 'issun[optimum]'`。"
    ),
    # --- errors: evaluate ---
    "{path} is a folder, or lies in none: name a file.": (
        "{path} はフォルダーか、存在しないフォルダーの中です。ファイルを指定してください。"
    ),
    "{path} is no table: {reason}": "{path} は質問の表ではありません: {reason}",
    "{path} has no questions.": "{path} に質問がありません。",
    "{path}, row {row}: {reason}": "{path} の {row} 行目: {reason}",
    "{path}, row {row}: `question` is empty.": "{path} の {row} 行目: `question` が空です。",
    "{path}, row {row}: `right` is empty.": "{path} の {row} 行目: `right` が空です。",
    "{path}, row {row}: a word of `{field}` is empty.": (
        "{path} の {row} 行目: `{field}` に空の語があります。"
    ),
    "{path}, row {row}: `input` goes with the short format, `role` and `history` with the "
    "chat format: a row cannot have both.": (
        "{path} の {row} 行目: `input` は short 形式、`role` と `history` は chat 形式のものです。"
        "両方は書けません。"
    ),
    "{path}, row {row}: `wrong` has {wrong!r}, which is in the right word {right!r}: no answer "
    "with that could be right.": (
        "{path} の {row} 行目: `wrong` の {wrong!r} は正しい語 {right!r} に含まれています。"
        "この語を含む答えは決して正答になりません。"
    ),
    "samples is {value!r}, it must be 1 or more.": (
        "samples は {value!r} ですが、1 以上でなければなりません。"
    ),
    "slots is {value!r}, it must be 1 or more.": (
        "slots は {value!r} ですが、1 以上でなければなりません。"
    ),
    "seed is {value!r}, it must be from 0 to {last}.": (
        "seed は {value!r} ですが、0 から {last} まででなければなりません。"
    ),
    "No question of the table has the format {names}.": ("表に {names} 形式の質問がありません。"),
    "The prompts are one text: give a list of texts.": (
        "プロンプトが一つの文です。文のリストを渡してください。"
    ),
    "There are {prompts} prompts and {params} sampling parameters: give one for all prompts, or "
    "one for each.": (
        "プロンプトが {prompts} 個、生成の設定が {params} 個あります。"
        "設定は全体に一つか、プロンプトごとに一つ渡してください。"
    ),
    # --- errors: targets ---
    "There is no folder {parent}.": "フォルダー {parent} がありません。",
    "{target} cannot be written: {reason}": "{target} に書き込めません: {reason}",
    "{target} exists: choose another folder, or replace the bundle in it with --force.": (
        "{target} はすでにあります。別のフォルダーにするか、--force でバンドルを置き換えてください。"
    ),
    "{target} is a symbolic link: name the folder itself.": (
        "{target} はシンボリックリンクです。フォルダーそのものを指定してください。"
    ),
    "{target} is not a bundle, so --force does not replace it: choose another folder.": (
        "{target} はバンドルではないので、--force でも置き換えません。"
        "別のフォルダーにしてください。"
    ),
    "{target} is, holds or lies in the checkpoint {source}: choose another folder.": (
        "{target} はチェックポイント {source} と重なっています。別のフォルダーにしてください。"
    ),
    "{target} needs {needed:,} MB of disk space and {free:,} MB are free.": (
        "{target} には {needed:,} MB の空きが必要ですが、{free:,} MB しかありません。"
    ),
    # --- fine-tuning ---
    "Fine-tuning needs {module}: pip install 'issun[train]'": "学習には {module} が必要です: pip install 'issun[train]'",
    "Fine-tuning needs torch, transformers and accelerate: `pip install 'issun[train]'`.": "学習には torch、transformers、accelerate が必要です: `pip install 'issun[train]'`。",
    "Stopped. Go on with: {command}": "中断しました。再開するには: {command}",
    "{output}: loss {first:.4f} in epoch 1, {last:.4f} in epoch {epochs}. Next: issun export {folder} -o BUNDLE": "{output}: 損失はエポック 1 で {first:.4f}、エポック {epochs} で {last:.4f}。次は: issun export {folder} -o BUNDLE",
    "epoch    loss   right": "epoch    loss   正答",
    "best": "最良",
    "training": "学習中",
    "evaluating": "評価中",
    "Base: {rate:.1%} right.": "学習前: 正答 {rate:.1%}。",
    "Epoch {epoch}: loss {loss:.4f}.": "エポック {epoch}: 損失 {loss:.4f}。",
    "Epoch {epoch}: loss {loss:.4f}, {rate:.1%} right.": "エポック {epoch}: 損失 {loss:.4f}、正答 {rate:.1%}。",
    "Optimizer: {name}, as asked.": "オプティマイザー: {name} (指定による)。",
    "Optimizer: adamw_bnb_8bit, since there are a GPU and bitsandbytes.": "オプティマイザー: adamw_bnb_8bit (GPU と bitsandbytes があるため)。",
    "Optimizer: adamw, since the {needed:.1f} GB that it needs fit into the {free:.1f} GB of free memory.": "オプティマイザー: adamw (必要な {needed:.1f} GB が空きメモリー {free:.1f} GB に収まるため)。",
    "Optimizer: adafactor, since adamw needs {needed:.1f} GB and {free:.1f} GB of memory are free.": "オプティマイザー: adafactor (adamw には {needed:.1f} GB 必要で、空きメモリーは {free:.1f} GB のため)。",
    "{count:,} of {total:,} records are cut to {limit:,} tokens.": "{total:,} 件中 {count:,} 件のレコードを {limit:,} トークンに切り詰めます。",
    "No record can be made: {reason}": "レコードにできません: {reason}",
    "{path} is empty.": "{path} は空です。",
    "{path} holds no record.": "{path} にレコードがありません。",
    "{path}: {bad:,} of {total:,} records cannot be used: {faults}.": "{path}: {total:,} 件中 {bad:,} 件のレコードが使えません: {faults}。",
    "{path}: {count:,} of {total:,} records have more than {limit:,} tokens ({lines}): shorten them, or cut them with --truncate.": "{path}: {total:,} 件中 {count:,} 件のレコードが {limit:,} トークンを超えています ({lines})。短くするか、--truncate で切り詰めてください。",
    "max_length is {value:,}, it must be at most the model's context of {context:,}.": "max_length は {value:,} ですが、モデルの文脈長 {context:,} 以下にしてください。",
    "{folder}: records end with {eos}, which is not the end token of this tokenizer.": "{folder}: レコードの末尾 {eos} が、このトークナイザーの終了トークンではありません。",
    "{target} exists: choose another folder, or go on with a run in it with --resume.": "{target} はすでにあります。別のフォルダーにするか、--resume で中の学習を再開してください。",
    "Another process is training in {folder}.": "別のプロセスが {folder} で学習中です。",
    "{folder} holds no fine-tuning run: start one without --resume.": "{folder} に学習の記録がありません。--resume なしで始めてください。",
    "{path} cannot be read ({reason}): start a run in another folder.": "{path} を読めません ({reason})。別のフォルダーで始めてください。",
    "{folder} was started otherwise: {differences}. Resume it as it was started, or start another run.": "{folder} は別の設定で始められています: {differences}。始めたときと同じ設定で再開するか、別に始めてください。",
    "The optimizer adamw_bnb_8bit needs an NVIDIA GPU and bitsandbytes: choose adamw or adafactor.": "オプティマイザー adamw_bnb_8bit には NVIDIA の GPU と bitsandbytes が必要です。adamw か adafactor を選んでください。",
    "The loss of step {step} is {loss}: try a lower --learning-rate.": "ステップ {step} の損失が {loss} になりました。--learning-rate を下げてください。",
    "The memory is not enough for batches of {size} records: try --batch-size 1 --gradient-accumulation {steps}, a smaller --max-length, or --optimizer adafactor.": "{size} レコードのバッチにはメモリーが足りません。--batch-size 1 --gradient-accumulation {steps}、小さい --max-length、または --optimizer adafactor を試してください。",
    # --- benchmarks ---
    "Measure speed and memory.": "速度とメモリーを測ります。",
    "Measure bundles, and with --checkpoint every engine at hand.": "バンドルを測ります。--checkpoint を付けると、使えるエンジンをすべて測ります。",
    "Write a page with plots from a run's results.": "測定結果から図入りのページを作ります。",
    "Say which precision and context fit a machine's memory.": "メモリーに収まる精度と文脈長を示します。",
    "Bundles (default: the embedded model).": "バンドル（省略時は内蔵モデル）。",
    "A checkpoint that each engine converts and runs.": "各エンジンが変換して動かすチェックポイント。",
    "Engines for the checkpoint: all, or some of {names}.": "チェックポイントを動かすエンジン: all、または {names} から。",
    "Where all figures go.": "すべての数値の書き出し先。",
    "Go on with the run in the output file.": "出力ファイルの測定を再開します。",
    "Where conversions go and stay (default: beside the output).": "変換結果を置き、残すフォルダー（省略時は出力の隣で、最後に消します）。",
    "Numbers of threads (default: physical cores).": "スレッド数（省略時は物理コア数）。",
    "KV caches of the bundles: float32, int8 or both with a comma.": "バンドルの KV キャッシュ: float32、int8、またはコンマ区切りで両方。",
    "Rounds, with every engine in each.": "ラウンド数。各ラウンドで全エンジンを測ります。",
    "Prompt lengths (default: 32,128,512,900 as far as they fit).": "プロンプトの長さ（省略時は 32,128,512,900 のうち収まるもの）。",
    "Contexts to decode behind (default: 0,128,512,900).": "生成の前に読む文脈の長さ（省略時は 0,128,512,900）。",
    "Tokens decoded behind each context.": "各文脈の後に生成するトークン数。",
    "Contexts of the memory runs (default: 256,1000).": "メモリー測定の文脈長（省略時は 256,1000）。",
    "Measure a chat turn too.": "会話の 1 ターンも測ります。",
    "Of the prompts' ids.": "プロンプトの ID の乱数の種。",
    "Print ratios to these older results.": "この以前の結果との比も表示します。",
    "A file that a run has written.": "測定が書き出したファイル。",
    "Folder for page and plots.": "ページと図を置くフォルダー。",
    "Only print the table as Markdown.": "表を Markdown で表示するだけにします。",
    "The machine's memory, such as 2GB.": "パソコンのメモリー。例: 2GB。",
    "What the system and other programs keep.": "システムとほかのプログラムに残す量。",
    "All figures are in {path}.": "すべての数値は {path} にあります。",
    "[stopped: what was measured is in {path}; --resume goes on]": "[中断しました。測定した分は {path} にあります。--resume で再開できます]",
    "Benchmarks need {module}: pip install 'issun[bench]'": "測定には {module} が必要です: pip install 'issun[bench]'",
    "{name} is {value!r}: give numbers from {low} to {high}, with commas between them.": "{name} が {value!r} です。{low} から {high} までの数をコンマで区切って指定してください。",
    "{name} is {value!r}: the context leaves room for {limit:,}.": "{name} が {value!r} です。文脈に収まるのは {limit:,} までです。",
    "memory is {value!r}: a context holds the prompt and {new} new tokens.": "memory が {value!r} です。文脈にはプロンプトと {new} 個の新しいトークンが入ります。",
    "Two of the bundles or engines have the same name: rename a folder.": "同じ名前のバンドルまたはエンジンがあります。フォルダー名を変えてください。",
    "There is no run to go on with at {path}.": "{path} に再開できる測定がありません。",
    "{path} exists: go on with it by --resume, or name another file.": "{path} はすでにあります。--resume で再開するか、別のファイルにしてください。",
    "{path} was measured on another machine, model or seed: name another file.": "{path} は別の機械・モデル・乱数の種で測られています。別のファイルにしてください。",
    "The results have no engine whose memory was measured at two contexts.": "二つの文脈長でメモリーを測ったエンジンが、結果にありません。",
    "{value!r} is no amount of memory: write it like 2GB.": "{value!r} はメモリーの量ではありません。2GB のように書いてください。",
    "{path} holds no results: {reason}": "{path} は測定結果ではありません: {reason}",
    "Packing the weights for this CPU, which later starts need not do …": "この CPU 用に重みを並べ替えています。次回からは不要です …",
    "The packed weights in {path} were damaged: removed.": "{path} の並べ替え済みの重みが壊れていたので削除しました。",
    "Packed weights are not used: {reason}": "並べ替え済みの重みは使いません: {reason}",
    "Packed weights are not kept: that takes {needed:,} MB of disk space for a while, and {free:,} MB are free.": "並べ替え済みの重みは保存しません: 一時的に {needed:,} MB の空きが必要ですが、空きは {free:,} MB です。",
    "{path} is damaged.": "{path} は壊れています。",
    "List, check or clear the weights packed for this CPU.": "この CPU 用に並べ替えた重みを一覧・検査・削除します。",
    "{name} is empty: there is no cache.": "{name} が空なので、キャッシュはありません。",
    "Freed {size:,.1f} MB in {folder}.": "{folder} の {size:,.1f} MB を解放しました。",
    "Damaged: {bundles}. `issun cache clear` removes all packed weights.": "壊れています: {bundles}。`issun cache clear` で並べ替え済みの重みをすべて削除できます。",
    "All packed weights have the content that was written.": "並べ替え済みの重みはすべて、書いたときの内容のままです。",
    "{count} in {folder}, {size:,.1f} MB together.": "{folder} に {count} 件、合計 {size:,.1f} MB。",
    "lookup is {value!r}, it must be True or False.": (
        "lookup は {value!r} ですが、True か False でなければなりません。"
    ),
    "Read ahead what the text has said before (default), or do not.": (
        "前に出てきた語句の続きを先読みする (既定)、またはしない。"
    ),
}
