"""Text that brings out where two readers of one tokenizer differ, made from the tokenizer itself.

What differed in models that people had: Unicode normalisation and lower-casing, added tokens that are looked for in the
normalised text, whole pieces taken before merges are tried, tokens that no merge makes. So the text holds characters that
every normaliser changes, each added token in several surroundings and in other letter cases, and words of the vocabulary,
those first that no merge makes.
"""

import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from ai_forge.model_files.tokenizers.spm_vocabulary import BYTE_TOKEN, SPACE, merge_pairs

N_WORDS, N_ADDED = 1500, 300

_WRITTEN = """\
The quick brown Fox JUMPS over it's, we'll, don't, I'D, you're; 1234567890 3.14 0xFF 1,000,000
def f(x: int) -> str:\treturn f"{x!r:>10}"  # two  spaces
    if (a && b) || !c { return x[i]->y::z; } /* comment */ // other
SELECT * FROM "Table" WHERE id = 'sql'; SQL sql Sql
 leading and trailing\x20
\ttabs\t\tand  spaces   of    all     lengths
Ünïcödé façade naïve Straße ÅNGSTRÖM ǅ ﬁ ﬂ ½ ² № ™ … “quotes” ‘single’ – — ‑
ＦＵＬＬｗｉｄｔｈ　ｓｐａｃｅ １２３ ｶﾀｶﾅ カタカナ ひらがな 日本語 中文，标点。 한국어 각 ㄱㅏㄱ
Ελληνικά Кириллица ЁЖИК עברית العربية ١٢٣ हिन्दी ไทย
İstanbul ı ſ K Å Ω é ñ ç
🙂 👩‍👩‍👧 🇩🇪 ☃️ \u00a0\u2003\u200b\u200d\u00ad\ufeff x
"""


def probe_texts(tokenizer: Mapping[str, Any]) -> list[str]:
    """Short texts for the content of a `tokenizer.json`; the first that differs is the one to show."""
    written = _WRITTEN.splitlines()
    decomposed = [unicodedata.normalize("NFD", line) for line in written]
    texts = [*written, *decomposed, *_with_added(tokenizer), *_with_words(tokenizer)]
    return list(dict.fromkeys(filter(None, texts)))


def _with_added(tokenizer: Mapping[str, Any]) -> Iterator[str]:
    added = [str(row["content"]) for row in _spread(tokenizer.get("added_tokens", []), N_ADDED)]
    by_beginning: dict[str, list[str]] = {}
    for token in added:
        for end in range(1, len(token)):
            by_beginning.setdefault(token[:end], []).append(token)
    for token in added:
        for start in range(1, len(token)):  # two that overlap: which one is found?
            for other in by_beginning.get(token[start:], []):
                yield token[:start] + other
        for inside in dict.fromkeys((token, token.lower(), token.upper())):
            yield f"a{inside}b {inside} c{inside}{inside}d"
            yield inside


def _with_words(tokenizer: Mapping[str, Any]) -> Iterator[str]:
    model = tokenizer["model"]
    added = {row["content"] for row in tokenizer.get("added_tokens", [])}
    made = {"".join(pair) for pair in merge_pairs(model)}
    words = [token for token in model["vocab"] if token not in added and not BYTE_TOKEN.fullmatch(token)]
    unmade = [word for word in words if len(word) > 1 and word not in made]
    for word in [*_spread(unmade, N_WORDS // 3), *_spread(words, N_WORDS)]:
        text = _as_text(word, byte_level=not model.get("byte_fallback"))
        if text is not None:
            yield text
            yield f"x {text} y"


def _spread(rows: list[Any], n: int) -> list[Any]:
    """At most `n` of `rows`, evenly."""
    return rows[:: max(1, -(-len(rows) // n))]


def _as_text(token: str, *, byte_level: bool) -> str | None:
    """The text of a token of the vocabulary; None for one that ends inside a character."""
    if not byte_level:
        return token.replace(SPACE, " ")
    try:
        return bytes(_BYTES[character] for character in token).decode("utf-8")
    except (KeyError, UnicodeDecodeError):
        return None


def _byte_letters() -> dict[str, int]:
    """GPT-2's letter of each byte: itself where it prints, else one from U+0100 on (`bytes_to_unicode` in its encoder)."""
    printing = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printing]
    return {chr(byte): byte for byte in printing} | {chr(256 + at): byte for at, byte in enumerate(others)}


_BYTES = _byte_letters()


def what_is_unusual(tokenizer: Mapping[str, Any]) -> str:
    """What in a `tokenizer.json` may be the reason for other ids, in words; "" for nothing known."""
    found = []
    normalizer = tokenizer.get("normalizer") or {}
    kinds = [str(step.get("type")) for step in normalizer.get("normalizers", [normalizer]) if step]
    if other := [kind for kind in kinds if kind not in ("Prepend", "Replace")]:
        found.append(f"the normaliser {', '.join(other)}")
    normalized = [row["content"] for row in tokenizer.get("added_tokens", []) if row.get("normalized")]
    if normalized:
        found.append(f"added tokens that are looked for in normalised text, first {normalized[0]!r}")
    if tokenizer["model"].get("ignore_merges"):
        found.append("ignore_merges: whole pieces before merges")
    return ", ".join(found)
