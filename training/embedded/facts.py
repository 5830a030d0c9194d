"""The facts that the embedded model learns: prefectures, countries and superlatives."""

from __future__ import annotations

from typing import NamedTuple


class Prefecture(NamedTuple):
    """A prefecture, the seat of its government, and its region."""

    name: str
    seat: str
    region: str

    @property
    def seat_word(self) -> str:
        """The word for the seat of government: 県庁所在地, 都庁所在地, …"""
        return f"{self.name[-1]}庁所在地"

    @property
    def short(self) -> str:
        """The short name: 神奈川 for 神奈川県, but 北海道."""
        return self.name if self.name == "北海道" else self.name[:-1]


class Country(NamedTuple):
    """A country, its capital, and its continent."""

    name: str
    capital: str
    continent: str


class Superlative(NamedTuple):
    """A superlative: scope, rank, adjectives, nouns, and answers, the first of which is given."""

    scope: str
    rank: str
    adjectives: tuple[str, ...]
    nouns: tuple[str, ...]
    answers: tuple[str, ...]
    also: tuple[str, ...] = ()  # other complete phrases for it

    @property
    def canonical(self) -> str:
        """The topic as it appears in the answer: 日本で一番高い山."""
        return f"{self.scope}で{self.rank}{self.adjectives[0]}{self.nouns[0]}"


def _prefectures(table: str) -> tuple[Prefecture, ...]:
    rows = (line.split() for line in table.strip().splitlines())
    return tuple(
        Prefecture(name, seat, region)
        for region, *pairs in rows
        for name, seat in (pair.split("=") for pair in pairs)
    )


def _countries(table: str) -> tuple[Country, ...]:
    rows = (line.split() for line in table.strip().splitlines())
    return tuple(
        Country(name, capital, continent)
        for continent, *pairs in rows
        for name, capital in (pair.split("=") for pair in pairs)
    )


PREFECTURES = _prefectures(
    """
北海道地方 北海道=札幌市
東北地方 青森県=青森市 岩手県=盛岡市 宮城県=仙台市 秋田県=秋田市 山形県=山形市 福島県=福島市
関東地方 茨城県=水戸市 栃木県=宇都宮市 群馬県=前橋市 埼玉県=さいたま市 千葉県=千葉市
関東地方 東京都=新宿区 神奈川県=横浜市
中部地方 新潟県=新潟市 富山県=富山市 石川県=金沢市 福井県=福井市 山梨県=甲府市 長野県=長野市
中部地方 岐阜県=岐阜市 静岡県=静岡市 愛知県=名古屋市
近畿地方 三重県=津市 滋賀県=大津市 京都府=京都市 大阪府=大阪市 兵庫県=神戸市 奈良県=奈良市
近畿地方 和歌山県=和歌山市
中国地方 鳥取県=鳥取市 島根県=松江市 岡山県=岡山市 広島県=広島市 山口県=山口市
四国地方 徳島県=徳島市 香川県=高松市 愛媛県=松山市 高知県=高知市
九州地方 福岡県=福岡市 佐賀県=佐賀市 長崎県=長崎市 熊本県=熊本市 大分県=大分市 宮崎県=宮崎市
九州地方 鹿児島県=鹿児島市 沖縄県=那覇市
"""
)

COUNTRIES = _countries(
    """
アジア 日本=東京 中国=北京 韓国=ソウル 北朝鮮=平壌 モンゴル=ウランバートル タイ=バンコク
アジア ベトナム=ハノイ ラオス=ビエンチャン カンボジア=プノンペン ミャンマー=ネピドー
アジア マレーシア=クアラルンプール シンガポール=シンガポール インドネシア=ジャカルタ
アジア フィリピン=マニラ インド=ニューデリー パキスタン=イスラマバード ネパール=カトマンズ
アジア バングラデシュ=ダッカ スリランカ=スリジャヤワルダナプラコッテ ブータン=ティンプー
アジア イラン=テヘラン イラク=バグダッド サウジアラビア=リヤド クウェート=クウェート
アジア カタール=ドーハ オマーン=マスカット ヨルダン=アンマン レバノン=ベイルート
アジア シリア=ダマスカス トルコ=アンカラ カザフスタン=アスタナ ウズベキスタン=タシケント
アジア アフガニスタン=カブール アラブ首長国連邦=アブダビ ブルネイ=バンダルスリブガワン
ヨーロッパ フランス=パリ イギリス=ロンドン ドイツ=ベルリン イタリア=ローマ スペイン=マドリード
ヨーロッパ ポルトガル=リスボン オランダ=アムステルダム ベルギー=ブリュッセル スイス=ベルン
ヨーロッパ オーストリア=ウィーン ギリシャ=アテネ ポーランド=ワルシャワ チェコ=プラハ
ヨーロッパ ハンガリー=ブダペスト ルーマニア=ブカレスト ブルガリア=ソフィア
ヨーロッパ スウェーデン=ストックホルム ノルウェー=オスロ フィンランド=ヘルシンキ
ヨーロッパ デンマーク=コペンハーゲン アイスランド=レイキャビク アイルランド=ダブリン
ヨーロッパ ロシア=モスクワ ウクライナ=キーウ ベラルーシ=ミンスク クロアチア=ザグレブ
ヨーロッパ セルビア=ベオグラード スロバキア=ブラチスラバ スロベニア=リュブリャナ
ヨーロッパ エストニア=タリン ラトビア=リガ リトアニア=ビリニュス ルクセンブルク=ルクセンブルク
ヨーロッパ アルバニア=ティラナ マルタ=バレッタ
アフリカ エジプト=カイロ モロッコ=ラバト アルジェリア=アルジェ チュニジア=チュニス
アフリカ リビア=トリポリ スーダン=ハルツーム エチオピア=アディスアベバ ケニア=ナイロビ
アフリカ ウガンダ=カンパラ ルワンダ=キガリ タンザニア=ドドマ ナイジェリア=アブジャ ガーナ=アクラ
アフリカ セネガル=ダカール マリ=バマコ コートジボワール=ヤムスクロ カメルーン=ヤウンデ
アフリカ アンゴラ=ルアンダ ザンビア=ルサカ ジンバブエ=ハラレ モザンビーク=マプト
アフリカ 南アフリカ=プレトリア ナミビア=ウィントフック ボツワナ=ハボローネ
アフリカ マダガスカル=アンタナナリボ ソマリア=モガディシュ
北アメリカ アメリカ=ワシントン カナダ=オタワ メキシコ=メキシコシティ キューバ=ハバナ
北アメリカ ジャマイカ=キングストン グアテマラ=グアテマラシティ コスタリカ=サンホセ
北アメリカ パナマ=パナマシティ ハイチ=ポルトープランス ホンジュラス=テグシガルパ
北アメリカ ニカラグア=マナグア エルサルバドル=サンサルバドル
南アメリカ ブラジル=ブラジリア アルゼンチン=ブエノスアイレス チリ=サンティアゴ ペルー=リマ
南アメリカ コロンビア=ボゴタ ベネズエラ=カラカス エクアドル=キト ボリビア=スクレ
南アメリカ パラグアイ=アスンシオン ウルグアイ=モンテビデオ
オセアニア オーストラリア=キャンベラ ニュージーランド=ウェリントン フィジー=スバ パラオ=マルキョク
オセアニア パプアニューギニア=ポートモレスビー サモア=アピア トンガ=ヌクアロファ
"""
)

_HIGH = ("高い", "標高が高い", "標高の高い")
_WIDE = ("広い", "大きい", "大きな", "面積が広い", "面積の大きい")
_LONG = ("長い", "長さが長い")
_DEEP = ("深い", "水深が深い")
_SMALL = ("小さい", "小さな", "狭い", "面積が小さい")
_MOUNTAIN = ("山", "山岳")
_LAKE = ("湖", "湖沼")
_RIVER = ("川", "河川")

SUPERLATIVES = (
    Superlative("日本", "一番", _HIGH, _MOUNTAIN, ("富士山",), ("日本の最高峰", "日本一の山")),
    Superlative("日本", "二番目に", _HIGH, _MOUNTAIN, ("北岳",), ("富士山の次に高い山",)),
    Superlative("日本", "一番", _WIDE, _LAKE, ("琵琶湖",), ("日本最大の湖",)),
    Superlative("日本", "二番目に", _WIDE, _LAKE, ("霞ヶ浦",), ("琵琶湖の次に広い湖",)),
    Superlative("日本", "一番", _DEEP, _LAKE, ("田沢湖",), ("日本一深い湖",)),
    Superlative("日本", "一番", ("透明度が高い", "透き通った"), _LAKE, ("摩周湖",)),
    Superlative("日本", "一番", _LONG, _RIVER, ("信濃川",), ("日本最長の川",)),
    Superlative("日本", "二番目に", _LONG, _RIVER, ("利根川",), ("信濃川の次に長い川",)),
    Superlative("日本", "一番", ("流域面積が広い", "流域の広い"), _RIVER, ("利根川",)),
    Superlative("日本", "一番", _WIDE, ("都道府県", "県"), ("北海道",)),
    Superlative("日本", "一番", _SMALL, ("都道府県", "県"), ("香川県", "香川")),
    Superlative("日本", "一番", ("人口が多い", "人の多い"), ("都道府県", "県"), ("東京都", "東京")),
    Superlative(
        "日本", "一番", ("人口が少ない", "人の少ない"), ("都道府県", "県"), ("鳥取県", "鳥取")
    ),
    Superlative("日本", "一番", ("大きい", "広い", "大きな"), ("島",), ("本州",)),
    Superlative("日本", "一番", _LONG, ("トンネル",), ("青函トンネル",)),
    Superlative("日本", "一番", ("長い",), ("吊り橋",), ("明石海峡大橋",)),
    Superlative("日本", "一番", ("高い",), ("タワー", "塔"), ("東京スカイツリー", "スカイツリー")),
    Superlative("日本", "一番", ("広い", "大きい", "大きな"), ("平野",), ("関東平野",)),
    Superlative("日本", "一番", ("大きい", "広い", "大きな"), ("半島",), ("紀伊半島",)),
    Superlative("日本", "一番", ("落差が大きい", "高い"), ("滝",), ("称名滝",)),
    Superlative("日本", "一番", ("深い",), ("湾",), ("駿河湾",)),
    Superlative("日本", "一番", ("広い", "大きい"), ("湿原",), ("釧路湿原",)),
    Superlative(
        "日本", "一番", ("南にある", "南の"), ("島",), ("沖ノ鳥島",), ("日本の最南端の島",)
    ),
    Superlative("日本", "一番", ("東にある", "東の"), ("島",), ("南鳥島",), ("日本の最東端の島",)),
    Superlative(
        "日本", "一番", ("西にある", "西の"), ("島",), ("与那国島",), ("日本の最西端の島",)
    ),
    Superlative("世界", "一番", _HIGH, _MOUNTAIN, ("エベレスト",), ("世界の最高峰", "世界一の山")),
    Superlative("世界", "二番目に", _HIGH, _MOUNTAIN, ("K2",), ("エベレストの次に高い山",)),
    Superlative("世界", "一番", _WIDE, _LAKE, ("カスピ海",), ("世界最大の湖",)),
    Superlative("世界", "一番", _DEEP, _LAKE, ("バイカル湖",), ("世界一深い湖",)),
    Superlative("世界", "一番", _LONG, _RIVER, ("ナイル川",), ("世界最長の川",)),
    Superlative("世界", "一番", ("流域面積が広い", "流域の広い"), _RIVER, ("アマゾン川",)),
    Superlative("世界", "一番", _WIDE, ("国",), ("ロシア",), ("世界最大の国",)),
    Superlative("世界", "一番", _SMALL, ("国",), ("バチカン市国", "バチカン"), ("世界最小の国",)),
    Superlative("世界", "一番", ("人口が多い", "人の多い"), ("国",), ("インド",)),
    Superlative("世界", "一番", ("大きい", "広い", "大きな"), ("島",), ("グリーンランド",)),
    Superlative("世界", "一番", ("大きい", "広い", "大きな"), ("大陸",), ("ユーラシア大陸",)),
    Superlative("世界", "一番", ("小さい", "小さな", "狭い"), ("大陸",), ("オーストラリア大陸",)),
    Superlative("世界", "一番", ("広い", "大きい", "大きな"), ("海", "海洋"), ("太平洋",)),
    Superlative("世界", "一番", ("深い",), ("海溝", "海"), ("マリアナ海溝",)),
    Superlative("世界", "一番", ("広い", "大きい", "大きな"), ("砂漠",), ("サハラ砂漠",)),
    Superlative("世界", "一番", ("落差が大きい", "高い"), ("滝",), ("エンジェルフォール",)),
    Superlative("世界", "一番", ("高い",), ("建物", "ビル"), ("ブルジュ・ハリファ",)),
    Superlative("世界", "一番", ("長い",), ("山脈",), ("アンデス山脈",)),
    Superlative("世界", "一番", ("大きい", "広い", "大きな"), ("半島",), ("アラビア半島",)),
    Superlative("世界", "一番", ("大きい", "大きな"), ("動物", "生き物"), ("シロナガスクジラ",)),
    Superlative("世界", "一番", ("背が高い", "背の高い"), ("動物", "生き物"), ("キリン",)),
    Superlative("世界", "一番", ("足が速い", "足の速い"), ("動物", "生き物"), ("チーター",)),
    Superlative("アフリカ", "一番", _HIGH, _MOUNTAIN, ("キリマンジャロ",)),
    Superlative("ヨーロッパ", "一番", _HIGH, _MOUNTAIN, ("エルブルス山",)),
    Superlative("北アメリカ", "一番", _HIGH, _MOUNTAIN, ("デナリ",)),
    Superlative("南アメリカ", "一番", _HIGH, _MOUNTAIN, ("アコンカグア",)),
    Superlative("ヨーロッパ", "一番", _LONG, _RIVER, ("ボルガ川",)),
    Superlative("アジア", "一番", _LONG, _RIVER, ("長江",)),
    Superlative("アフリカ", "一番", _WIDE, _LAKE, ("ビクトリア湖",)),
)
