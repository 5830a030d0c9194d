"""Superlatives that the embedded model learns: the highest mountain, the longest river, …

Regions, islands, mountains, lakes and rivers are those of the tables of the Geospatial Information
Authority of Japan and of common atlases; what they dispute is left out, such as the highest mountain
of Oceania.
"""

from __future__ import annotations

from typing import NamedTuple


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


_HIGH = ("高い", "標高が高い", "標高の高い")
_WIDE = ("広い", "大きい", "大きな", "面積が広い", "面積の大きい")
_LONG = ("長い", "長さが長い")
_DEEP = ("深い", "水深が深い")
_SMALL = ("小さい", "小さな", "狭い", "面積が小さい")
_MOUNTAIN = ("山", "山岳")
_LAKE = ("湖", "湖沼")
_RIVER = ("川", "河川")
_PREFECTURE = ("都道府県", "県")
_MANY_PEOPLE = ("人口が多い", "人の多い", "人口の多い")
_FEW_PEOPLE = ("人口が少ない", "人の少ない", "人口の少ない")
_LARGE = ("大きい", "広い", "大きな")
_POPULOUS = ("大きい", "大きな", "人口が多い")
_CITY = ("都市", "街", "町", "市")

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
    Superlative("日本", "一番", _WIDE, _PREFECTURE, ("北海道",)),
    Superlative("日本", "一番", _SMALL, _PREFECTURE, ("香川県", "香川")),
    Superlative("日本", "一番", _MANY_PEOPLE, _PREFECTURE, ("東京都", "東京")),
    Superlative("日本", "一番", _FEW_PEOPLE, _PREFECTURE, ("鳥取県", "鳥取")),
    Superlative("日本", "一番", _LARGE, ("島",), ("本州",)),
    Superlative("日本", "一番", _LONG, ("トンネル",), ("青函トンネル",)),
    Superlative("日本", "一番", ("長い",), ("吊り橋",), ("明石海峡大橋",)),
    Superlative("日本", "一番", ("高い",), ("タワー", "塔"), ("東京スカイツリー", "スカイツリー")),
    Superlative("日本", "一番", ("広い", "大きい", "大きな"), ("平野",), ("関東平野",)),
    Superlative("日本", "一番", _LARGE, ("半島",), ("紀伊半島",)),
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
    Superlative("世界", "一番", _MANY_PEOPLE, ("国",), ("インド",)),
    Superlative("世界", "一番", _LARGE, ("島",), ("グリーンランド",)),
    Superlative("世界", "一番", _LARGE, ("大陸",), ("ユーラシア大陸",)),
    Superlative("世界", "一番", ("小さい", "小さな", "狭い"), ("大陸",), ("オーストラリア大陸",)),
    Superlative("世界", "一番", ("広い", "大きい", "大きな"), ("海", "海洋"), ("太平洋",)),
    Superlative("世界", "一番", ("深い",), ("海溝", "海"), ("マリアナ海溝",)),
    Superlative("世界", "一番", ("広い", "大きい", "大きな"), ("砂漠",), ("サハラ砂漠",)),
    Superlative("世界", "一番", ("落差が大きい", "高い"), ("滝",), ("エンジェルフォール",)),
    Superlative("世界", "一番", ("高い",), ("建物", "ビル"), ("ブルジュ・ハリファ",)),
    Superlative("世界", "一番", ("長い",), ("山脈",), ("アンデス山脈",)),
    Superlative("世界", "一番", _LARGE, ("半島",), ("アラビア半島",)),
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
    Superlative("日本", "三番目に", _LONG, _RIVER, ("石狩川",)),
    Superlative("日本", "三番目に", _WIDE, _LAKE, ("サロマ湖",)),
    Superlative("日本", "二番目に", _DEEP, _LAKE, ("支笏湖",)),
    Superlative("日本", "三番目に", _DEEP, _LAKE, ("十和田湖",)),
    Superlative("日本", "二番目に", _WIDE, _PREFECTURE, ("岩手県", "岩手")),
    Superlative("日本", "三番目に", _WIDE, _PREFECTURE, ("福島県", "福島")),
    Superlative("日本", "二番目に", _SMALL, _PREFECTURE, ("大阪府", "大阪")),
    Superlative("日本", "二番目に", _MANY_PEOPLE, _PREFECTURE, ("神奈川県", "神奈川")),
    Superlative("日本", "三番目に", _MANY_PEOPLE, _PREFECTURE, ("大阪府", "大阪")),
    Superlative("日本", "二番目に", _FEW_PEOPLE, _PREFECTURE, ("島根県", "島根")),
    Superlative("日本", "二番目に", _LARGE, ("島",), ("北海道",)),
    Superlative("日本", "三番目に", _LARGE, ("島",), ("九州",)),
    Superlative("日本", "四番目に", _LARGE, ("島",), ("四国",)),
    Superlative("日本", "一番", (*_LARGE, "人口が多い"), _CITY, ("東京",)),
    Superlative("日本", "二番目に", _POPULOUS, _CITY, ("横浜市", "横浜")),
    Superlative("日本", "三番目に", _POPULOUS, _CITY, ("大阪市", "大阪")),
    Superlative("日本", "一番", ("北にある", "北の"), _PREFECTURE, ("北海道",)),
    Superlative("世界", "三番目に", _HIGH, _MOUNTAIN, ("カンチェンジュンガ",)),
    Superlative("世界", "二番目に", _LONG, _RIVER, ("アマゾン川",)),
    Superlative("世界", "三番目に", _LONG, _RIVER, ("長江",)),
    Superlative("世界", "二番目に", _WIDE, _LAKE, ("スペリオル湖",)),
    Superlative("世界", "三番目に", _WIDE, _LAKE, ("ビクトリア湖",)),
    Superlative("世界", "二番目に", _DEEP, _LAKE, ("タンガニーカ湖",)),
    Superlative("世界", "二番目に", _WIDE, ("国",), ("カナダ",)),
    Superlative("世界", "二番目に", _SMALL, ("国",), ("モナコ",)),
    Superlative("世界", "二番目に", _MANY_PEOPLE, ("国",), ("中国",)),
    Superlative("世界", "三番目に", _MANY_PEOPLE, ("国",), ("アメリカ",)),
    Superlative("世界", "二番目に", _LARGE, ("島",), ("ニューギニア島",)),
    Superlative("世界", "三番目に", _LARGE, ("島",), ("ボルネオ島", "カリマンタン島")),
    Superlative("世界", "二番目に", ("広い", "大きい", "大きな"), ("海", "海洋"), ("大西洋",)),
    Superlative("世界", "三番目に", ("広い", "大きい", "大きな"), ("海", "海洋"), ("インド洋",)),
    Superlative("世界", "二番目に", _LARGE, ("大陸",), ("アフリカ大陸",)),
    Superlative("世界", "一番", ("大きい", "大きな"), ("鳥",), ("ダチョウ",)),
    Superlative("世界", "一番", ("小さい", "小さな"), ("鳥",), ("ハチドリ",)),
    Superlative("世界", "一番", ("大きい", "大きな"), ("花",), ("ラフレシア",)),
    Superlative("世界", "一番", ("大きい", "大きな"), ("魚",), ("ジンベエザメ",)),
    Superlative("世界", "一番", ("寒い",), ("大陸",), ("南極大陸",)),
    Superlative("北海道", "一番", _HIGH, _MOUNTAIN, ("旭岳",)),
    Superlative("北海道", "一番", _WIDE, _LAKE, ("サロマ湖",)),
    Superlative("北海道", "一番", _LONG, _RIVER, ("石狩川",)),
    Superlative("北海道", "一番", _POPULOUS, _CITY, ("札幌市", "札幌")),
    Superlative("東北", "一番", _HIGH, _MOUNTAIN, ("燧ヶ岳",)),
    Superlative("東北", "一番", _WIDE, _LAKE, ("猪苗代湖",)),
    Superlative("東北", "一番", _LONG, _RIVER, ("北上川",)),
    Superlative("東北", "一番", _POPULOUS, _CITY, ("仙台市", "仙台")),
    Superlative("関東", "一番", _HIGH, _MOUNTAIN, ("日光白根山", "白根山")),
    Superlative("関東", "一番", _WIDE, _LAKE, ("霞ヶ浦",)),
    Superlative("関東", "一番", _LONG, _RIVER, ("利根川",)),
    Superlative("関東", "一番", _POPULOUS, _CITY, ("東京",)),
    Superlative("中部", "一番", _HIGH, _MOUNTAIN, ("富士山",)),
    Superlative("中部", "一番", _WIDE, _LAKE, ("浜名湖",)),
    Superlative("中部", "一番", _LONG, _RIVER, ("信濃川",)),
    Superlative("中部", "一番", _POPULOUS, _CITY, ("名古屋市", "名古屋")),
    Superlative("近畿", "一番", _HIGH, _MOUNTAIN, ("八経ヶ岳",)),
    Superlative("近畿", "一番", _WIDE, _LAKE, ("琵琶湖",)),
    Superlative("近畿", "一番", _POPULOUS, _CITY, ("大阪市", "大阪")),
    Superlative("中国地方", "一番", _HIGH, _MOUNTAIN, ("大山",)),
    Superlative("中国地方", "一番", _WIDE, _LAKE, ("中海",)),
    Superlative("中国地方", "一番", _LONG, _RIVER, ("江の川",)),
    Superlative("中国地方", "一番", _POPULOUS, _CITY, ("広島市", "広島")),
    Superlative("四国", "一番", _HIGH, _MOUNTAIN, ("石鎚山",)),
    Superlative("四国", "一番", _LONG, _RIVER, ("四万十川",)),
    Superlative("四国", "一番", _POPULOUS, _CITY, ("松山市", "松山")),
    Superlative("九州", "一番", _HIGH, _MOUNTAIN, ("宮之浦岳",)),
    Superlative("九州", "一番", _WIDE, _LAKE, ("池田湖",)),
    Superlative("九州", "一番", _LONG, _RIVER, ("筑後川",)),
    Superlative("九州", "一番", _POPULOUS, _CITY, ("福岡市", "福岡")),
    Superlative("アジア", "一番", _HIGH, _MOUNTAIN, ("エベレスト",)),
    Superlative("オーストラリア", "一番", _HIGH, _MOUNTAIN, ("コジオスコ山",)),
    Superlative("南極", "一番", _HIGH, _MOUNTAIN, ("ビンソンマシフ",)),
    Superlative("ヨーロッパ", "一番", _WIDE, _LAKE, ("ラドガ湖",)),
    Superlative("北アメリカ", "一番", _WIDE, _LAKE, ("スペリオル湖",)),
    Superlative("アフリカ", "一番", _LONG, _RIVER, ("ナイル川",)),
    Superlative("南アメリカ", "一番", _LONG, _RIVER, ("アマゾン川",)),
    Superlative("アフリカ", "一番", _DEEP, _LAKE, ("タンガニーカ湖",)),
    Superlative("アフリカ", "一番", _WIDE, ("国",), ("アルジェリア",)),
    Superlative("ヨーロッパ", "一番", _WIDE, ("国",), ("ロシア",)),
    Superlative("北アメリカ", "一番", _WIDE, ("国",), ("カナダ",)),
    Superlative("南アメリカ", "一番", _WIDE, ("国",), ("ブラジル",)),
    Superlative("オセアニア", "一番", _WIDE, ("国",), ("オーストラリア",)),
    Superlative("アフリカ", "一番", _LARGE, ("島",), ("マダガスカル島", "マダガスカル")),
    Superlative("ヨーロッパ", "一番", _LARGE, ("島",), ("グレートブリテン島",)),
    Superlative("アフリカ", "一番", ("広い", "大きい", "大きな"), ("砂漠",), ("サハラ砂漠",)),
)
