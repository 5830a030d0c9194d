"""Measuring and evaluating."""

MESSAGES: dict[str, str] = {
    # --- evaluate ---
    "A worker gets one job as JSON: {reason}": "ワーカーには JSON の仕事を 1 つ渡します: {reason}",
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
    # --- benchmarks ---
    "  clipped         {clipped:.4%} of keys and values": "  範囲外          キーとバリューの {clipped:.4%}",
    "Say which linears lose most, too.": "どの線形層で最も失われるかも表示します。",
    "  by linear, the worst ten: what it moves of its block's output": "  線形層ごと (悪い順に 10): ブロックの出力を動かす割合",
    "--by-layer needs the checkpoint: give that as --against.": "--by-layer にはチェックポイントが必要です。--against に指定してください。",
    "{path} has no linears that issun has rounded.": "{path} には issun が丸めた線形層がありません。",
    "reading, layer by layer": "読み取り中 (層ごと)",
    "Measure speed and memory.": "速度とメモリーを測ります。",
    "Measure bundles, and with --checkpoint every engine at hand.": "バンドルを測ります。--checkpoint を付けると、使えるエンジンをすべて測ります。",
    "Write a page with plots from a run's results.": "測定結果から図入りのページを作ります。",
    "Take {engine}: a context of {context:,} tokens fits.": "{engine} がお勧めです。{context:,} トークンの文脈が収まります。",
    "Nothing that was measured fits.": "測定したものはどれも収まりません。",
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
    "Samples of each warm test in a round.": "各ラウンドで、暖まった状態の測定を繰り返す回数。",
    "Contexts of the memory runs, or none (default: 256,1000).": "メモリー測定の文脈長。none で省く（省略時は 256,1000）。",
    "Measure a chat turn too.": "会話の 1 ターンも測ります。",
    "Measure warm tests anew that ran while memory read slower or faster.": "メモリーの読み取り速度が開始時と違う間の、暖まった状態の測定をやり直します。",
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
    "Another run writes to {path}: wait for its end, or name another file.": "{path} には別の計測が書き込み中です。終わるのを待つか、別のファイルにしてください。",
    "{path} exists: go on with it by --resume, or name another file.": "{path} はすでにあります。--resume で再開するか、別のファイルにしてください。",
    "{path} was measured on another machine, model or seed, or in another way: name another file.": "{path} は別の機械・モデル・乱数の種か、別の方法で測られています。別のファイルにしてください。",
    "The server does not start: {reason}": "サーバーが起動しません: {reason}",
    "A stream ended without its usage: {last}": "使用量を伝えずにストリームが終わりました: {last}",
    "The results have no engine whose memory was measured at two contexts.": "二つの文脈長でメモリーを測ったエンジンが、結果にありません。",
    "{value!r} is no amount of memory: write it like 2GB.": "{value!r} はメモリーの量ではありません。2GB のように書いてください。",
    "{path} holds no results: {reason}": "{path} は測定結果ではありません: {reason}",
    "Packing the weights for this CPU, which later starts need not do …": "この CPU 用に重みを並べ替えています。次回からは不要です …",
    "The packed weights in {path} were damaged: removed.": "{path} の並べ替え済みの重みが壊れていたので削除しました。",
    "Packed weights are not used: {reason}": "並べ替え済みの重みは使いません: {reason}",
    "Packed weights are not kept: they are larger than the cache may be, {limit:,} MB.": "並べ替え済みの重みは保存しません: キャッシュの上限 {limit:,} MB より大きいためです。",
    "Packed weights are not kept: that takes {needed:,} MB of disk space for a while, and {free:,} MB are free.": "並べ替え済みの重みは保存しません: 一時的に {needed:,} MB の空きが必要ですが、空きは {free:,} MB です。",
    "{bundle} does not answer: {reason}": "{bundle} から回答がありません: {reason}",
    "{path} is damaged.": "{path} は壊れています。",
    "List, check or clear the weights packed for this CPU.": "この CPU 用に並べ替えた重みを一覧・検査・削除します。",
    "{name} is empty: there is no cache.": "{name} が空なので、キャッシュはありません。",
    "{path} cannot be removed: {reason}": "{path} を削除できません: {reason}",
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
    "{path}, row {row}: `leaf` and `schema` go without `role` and `history`.": (
        "{path} の {row} 行目: `leaf` と `schema` は `role` や `history` と一緒には使えません。"
    ),
    "{path}, row {row}: `leaf` names the one value of a schema, `schema` is a whole one: "
    "give one of them.": (
        "{path} の {row} 行目: `leaf` は値が一つのスキーマの名前、`schema` はスキーマ全体です。"
        "どちらか一つにしてください。"
    ),
}
