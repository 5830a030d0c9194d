"""Exporting and inspecting bundles, and their errors."""

MESSAGES: dict[str, str] = {
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
    "Size of the weights, like 900MB: each linear gets what fits it best.": "重みの大きさ。例: 900MB。線形層ごとに、収まる範囲で最もよい精度を選びます。",
    "Largest KL divergence: each linear gets the cheapest precision for it.": "KL ダイバージェンスの上限。線形層ごとに、それを守る最も小さい精度を選びます。",
    "--precision says it already: give it or --budget or --max-kl.": "--precision は --budget・--max-kl と一緒には使えません。どれか一つを指定してください。",
    "Give a budget or a largest divergence, not both.": "大きさと KL ダイバージェンスの上限は、どちらか一方だけを指定してください。",
    "max_kl is {value}, it must be above 0.": "max_kl が {value} ですが、0 より大きくなければなりません。",
    "A budget or a largest divergence is for issun's own rounding.": "大きさや KL ダイバージェンスの上限は、issun 自身の丸めでだけ使えます（--gptq・--via optimum とは併用できません）。",
    "A divergence of {asked:g} cannot be kept: with all linears in float32 it is {least:.2g}, from the embedding.": "KL ダイバージェンス {asked:g} は守れません。線形層をすべて float32 にしても、埋め込みのために {least:.2g} になります。",
    "All in 4 bits takes {least:,.0f} MB, more than the budget of {budget:,.0f} MB.": "すべて 4 ビットにしても {least:,.0f} MB で、指定の {budget:,.0f} MB を超えます。",
    "Another export is fitting {target} now.": "別のエクスポートが {target} を作成中です。",
    "Going on with a stopped export: {count} linears are fitted.": "中断したエクスポートを再開します。線形層 {count} 個は調整済みです。",
    "calibration": "校正",
    "KV cache": "KV キャッシュ",
    "tokenizer": "トークナイザー",
    "end tokens": "終了トークン",
    "prompt": "プロンプト",
    "sampling": "生成の設定",
    "fidelity": "忠実度",
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
    "{path} was changed while it was in use: load the model again.": (
        "{path} が使用中に変更されました。モデルを読み込み直してください。"
    ),
    "{path} is larger than a SentencePiece model can be.": "{path} は SentencePiece のモデルとしては大きすぎます。",
    "{path} is larger than a manifest can be.": "{path} はマニフェストとしては大きすぎます。",
    "{path} is missing or a link: export the bundle again, or copy it whole.": (
        "{path} がないか、リンクです。バンドルを書き出し直すか、全体をコピーしてください。"
    ),
    "{path} does not have the content that it was exported with.": (
        "{path} の内容が書き出し時と違います。"
    ),
    "{path} says of {name!r} no place in its file: export the bundle again.": (
        "{path} の {name!r} には、データファイル内の正しい位置がありません。バンドルを書き出し直してください。"
    ),
    "{path} is damaged: a piece is not UTF-8.": "{path} は壊れています。UTF-8 でない語彙があります。",
    "{path} is not a SentencePiece model.": "{path} は SentencePiece のモデルではありません。",
    "ONNX Runtime cannot open {path}: {reason}": ("ONNX Runtime で {path} を開けません: {reason}"),
    "The bundle's graph cannot be computed: {reason}. Export it again.": (
        "バンドルのグラフを計算できません: {reason}。書き出し直してください。"
    ),
    "{path} is no ONNX graph, or damaged.": "{path} は ONNX グラフではないか、壊れています。",
    "{path} refers to the file {name!r}, which is not one of the bundle's.": (
        "{path} が参照するファイル {name!r} は、バンドルのものではありません。"
    ),
    "{path} holds {what}, which issun does not write: it could read your files or never end. Where "
    "you trust its author: --trust, or Model.load(trust=True).": (
        "{path} には issun が書き出さないもの ({what}) があり、ファイルを読み取ったり、"
        "終わらなくなったりするおそれがあります。作成者を信頼できるなら --trust "
        "または Model.load(trust=True) を指定してください。"
    ),
    "The manifest's default sampling is bad: {reason}": (
        "マニフェストの既定の生成設定が正しくありません: {reason}"
    ),
    "{folder}: the manifest does not fit the bundle: {faults}.": (
        "{folder}: マニフェストがバンドルと合いません: {faults}。"
    ),
    # --- errors: checkpoints ---
    "The calibration text has no characters that the tokenizer knows.": (
        "校正用の文章に、トークナイザーの知っている文字がありません。"
    ),
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
    "{folder}: the weights hold an adapter ({name}): merge it with its base first (peft: "
    "merge_and_unload) and export the result.": (
        "{folder}: 重みにアダプター ({name}) が含まれています。"
        "先に元のモデルへ統合し (peft の merge_and_unload)、その結果を書き出してください。"
    ),
    "{folder} holds several networks, and none where transformers looks: {names}.": (
        "{folder} に複数のネットワークがあり、transformers が読む名前のものはありません: {names}。"
    ),
    "{folder}: lm_head.weight is not wte.weight, but config.json ties the two: it is left out, as "
    "transformers does. If the model has a head of its own, set tie_word_embeddings to false "
    "there.": (
        "{folder}: lm_head.weight が wte.weight と異なりますが、config.json は両者を共有すると"
        "しています。transformers と同じく lm_head.weight は使いません。独自の出力層を持つモデル"
        "なら、config.json の tie_word_embeddings を false にしてください。"
    ),
    "{folder}: left out {names}{more}, which GPT2LMHeadModel has not.": (
        "{folder}: GPT2LMHeadModel にない {names}{more} は使いません。"
    ),
    "{folder} has no SentencePiece tokenizer: expected one of {names}. Put the file of its base "
    "model there, or name a folder or hub id that has it with --tokenizer.": (
        "{folder} に SentencePiece のトークナイザーがありません。{names} のいずれかが必要です。"
        "元のモデルのファイルをそこに置くか、それがあるフォルダーか Hub の ID を --tokenizer で"
        "指定してください。"
    ),
    "{folder} has {others} and no SentencePiece tokenizer: expected one of {names}. Put the file "
    "that the tokenizer was made from there, or name a folder or hub id that has it with "
    "--tokenizer.": (
        "{folder} には {others} だけがあり、SentencePiece のトークナイザーがありません。"
        "{names} のいずれかが必要です。変換元のファイルをそこに置くか、それがあるフォルダーか Hub の ID を "
        "--tokenizer で指定してください。"
    ),
    "{path}: tokenizer_class is {name}, and issun reads text as T5Tokenizer does: ids may differ.": (
        "{path}: tokenizer_class は {name} ですが、issun は T5Tokenizer として文を読みます。"
        "ID が異なることがあります。"
    ),
    "{path}: the chat_template is not read; prompts follow the template {name}. --template FILE "
    "gives another.": (
        "{path}: chat_template は使いません。プロンプトはテンプレート {name} に従います。"
        "別の形式は --template FILE で指定できます。"
    ),
    "Folder or hub id that has the tokenizer, if another.": (
        "トークナイザーが別の場所にある場合、そのフォルダーか Hub の ID。"
    ),
    "{folder} is an adapter of {base}: merge it with its base first (peft: merge_and_unload) and "
    "export the result.": (
        "{folder} は {base} のアダプターです。先に元のモデルへ統合し (peft の merge_and_unload)、"
        "その結果を指定してください。"
    ),
    "{folder} holds an adapter of {base} ({names}) beside a model: merge the two first (peft: "
    "merge_and_unload) and export the result, or take the adapter's files away if the model is to "
    "be exported without them.": (
        "{folder} にはモデルと並んで {base} のアダプター ({names}) があります。"
        "先に統合して (peft の merge_and_unload) その結果を指定するか、アダプターなしで使うなら"
        "アダプターのファイルを取り除いてください。"
    ),
    "{path} does not fit config.json: it has {pieces} pieces{beyond}; vocab_size is {rows}.": (
        "{path} が config.json と合いません: {pieces} 個{beyond}、vocab_size は {rows} です。"
    ),
    "{folder}: {token} would get the id {id}, which {other} has: give it an id of its own in tokenizer_config.json.": "{folder}: {token} の ID は {id} になりますが、これは {other} のものです。tokenizer_config.json で別の ID を付けてください。",
    "{path}: {key} is {value!r}, which changes ids; issun reads {known!r} only.": "{path}: {key} は {value!r} ですが、ID が変わる設定です。issun で使えるのは {known!r} だけです。",
    "{path}: extra_ids is {count}, and {found} such tokens are listed.": "{path}: extra_ids は {count} ですが、該当するトークンは {found} 個です。",
    "{path}: {value!r:.80} is no list of tokens.": "{path}: {value!r:.80} はトークンの一覧ではありません。",
    "{path}: {value!r:.80} is no token id.": "{path}: {value!r:.80} はトークンの ID ではありません。",
    "{path}: {value!r:.80} is no token.": "{path}: {value!r:.80} はトークンではありません。",
    "{path} asks for {fields}, which issun does not do: answers may differ from those of transformers.": "{path} は {fields} を求めていますが、issun は対応していません。回答は transformers と異なることがあります。",
    "{path}: eos_token_id holds {id}, which no answer can end with: vocab_size is {rows}.": "{path}: eos_token_id の {id} で回答が終わることはありません。vocab_size は {rows} です。",
    "{path}: {key} holds {value!r:.80}, it must be a list of ids below {rows}.": "{path}: {key} の {value!r:.80} は、{rows} 未満の ID の一覧でなければなりません。",
    "{path}: {key} is {value!r}, it must be a whole number from {low} on.": "{path}: {key} は {value!r} ですが、{low} 以上の整数でなければなりません。",
    "{path}: {key} is {value!r}, it must be an id or a list of ids.": "{path}: {key} は {value!r} ですが、ID か ID の一覧でなければなりません。",
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
}
