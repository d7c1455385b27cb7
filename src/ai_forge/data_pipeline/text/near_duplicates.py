"""Near-duplicate texts: every pair whose shingles are at least so much alike, exactly and without MinHash.

Method: an exact set-similarity join (prefix filter, Bayardo et al. 2007; AllPairs/PPJoin). Shingles are ordered from rare
to common; two sets of Jaccard similarity t must share one of the first |x| − ⌈t |x|⌉ + 1 of each. So most texts, whose
rare shingles nobody else has, are out at once, and what is left is counted exactly. All steps, the splitting into tokens
too, are numpy over the whole collection.

MinHash (rensa, datasketch) was the first design: it finds candidates with a probability, needs its bands tuned for each
threshold and the same exact check afterwards, and hashing 64 to 128 permutations costs more than the whole join here
(`bench/bench_near_duplicates.py`: figures and recall). Shingles are hashes of 64 bits less those that number the texts: among
a million shingles of 10,000 texts, the chance that any two fall together is about 2e-4, and it would add one to a count.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["jaccard", "near_duplicate_pairs", "shingle"]

_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 1 << 64)
_RUN_BASE = 0xD1342543DE82EF95
_WORD, _SIGN = 1, 2
_KINDS = np.array(
    [_WORD if c > 127 or chr(c).isalnum() or c == 95 else 0 if chr(c).isspace() else _SIGN for c in range(256)],
    np.uint8,
)
_BATCH_BYTES = 1 << 18
"""Text that is split at once: some ten arrays of 8 bytes for each."""
_MAX_ALIKE = 200
"""Texts with the very same shingles: of more, each is paired with the first only."""
_CHUNK = 1 << 16
"""Pairs whose common shingles are counted at once."""
_SLACK = 1e-9
"""Against rounding: a bound may let too many through, never too few."""

Shingles = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]


def shingle(text: str, width: int) -> Shingles:
    """The distinct hashed runs of `width` tokens of `text`; a shorter text is one run."""
    return np.unique(_hashed([text], width)[1])


def jaccard(first: Shingles, second: Shingles) -> float:
    """Size of the intersection over size of the union, 0–1; two empty sets are 0.

    >>> jaccard(shingle("a b c", 1), shingle("b c d", 1))
    0.5
    """
    common = len(np.intersect1d(first, second, assume_unique=True))
    union = len(first) + len(second) - common
    return common / union if union else 0.0


def near_duplicate_pairs(texts: Sequence[str], threshold: float, *, width: int = 5) -> list[tuple[int, int, float]]:
    """Pairs (i, j, similarity) with i < j of texts that are at least `threshold` alike, in order. Empty texts have none.

    >>> near_duplicate_pairs(["a b c d e f", "x", "a b c d e f"], 0.8)
    [(0, 2, 1.0)]
    """
    n_texts = len(texts)
    places, hashes = _distinct(*_hashed(texts, width), n_texts)
    groups = _alike(places, hashes, n_texts)
    is_first = np.zeros(n_texts, dtype=bool)
    is_first[[members[0] for members in groups]] = True
    kept = is_first[places]
    places, hashes = places[kept], hashes[kept]
    sizes = np.bincount(places, minlength=n_texts)
    places, ids = _shared(places, hashes)
    pairs = _counted(_candidates(places, ids, sizes, threshold), places, ids, sizes, threshold)
    members_of = {members[0]: members for members in groups if len(members) > 1}
    found = [(a, b, 1.0) for members in members_of.values() for a, b in _within(members)]
    for first, second, similarity in pairs:
        left, right = members_of.get(first, [first]), members_of.get(second, [second])
        if len(left) * len(right) > _MAX_ALIKE**2:
            right = right[:1]
        found.extend((min(a, b), max(a, b), similarity) for a in left for b in right)
    return sorted(found)


def _tokens(texts: Sequence[str]) -> tuple[Shingles, Positions]:
    """(the hash of every token, number of tokens of each text).

    A token is a run of letters, digits, underscores and anything beyond ASCII, or one other sign. A hash is the value of
    the token's bytes as a polynomial: a difference of two running sums, divided by the power where it starts.
    """
    hashes: list[Shingles] = []
    lengths = np.zeros(len(texts), dtype=np.int64)
    raw = [text.encode("utf-8", "surrogatepass") for text in texts]
    ends = np.cumsum(np.fromiter(map(len, raw), dtype=np.int64, count=len(raw)) + 1)
    first = 0
    powers = inverses = np.zeros(0, dtype=np.uint64)
    while first < len(raw):
        last = max(first + 1, int(np.searchsorted(ends, (ends[first - 1] if first else 0) + _BATCH_BYTES, "right")))
        signs = np.frombuffer(b"\n".join(raw[first:last]) + b"\n", dtype=np.uint8)
        kinds = _KINDS[signs]
        in_word = np.zeros(len(signs) + 2, dtype=bool)
        np.equal(kinds, _WORD, out=in_word[1:-1])
        is_sign = kinds == _SIGN
        starts = np.flatnonzero(is_sign | (in_word[1:-1] & ~in_word[:-2]))
        stops = np.flatnonzero(is_sign | (in_word[1:-1] & ~in_word[2:])) + 1
        if len(powers) < len(signs):
            repeated = (np.full(len(signs), base, dtype=np.uint64) for base in (_BASE, _INVERSE))
            powers, inverses = (np.cumprod(row, dtype=np.uint64) for row in repeated)
        sums = np.zeros(len(signs) + 1, dtype=np.uint64)
        np.cumsum(signs * powers[: len(signs)], out=sums[1:])
        hashes.append((sums[stops] - sums[starts]) * inverses[starts])
        begin = ends[first - 1] if first else 0
        counted = np.searchsorted(starts, ends[first:last] - begin, "left")
        lengths[first:last] = np.diff(counted, prepend=0)
        first = last
    return (np.concatenate(hashes) if hashes else np.zeros(0, dtype=np.uint64)), lengths


def _hashed(texts: Sequence[str], width: int) -> tuple[Positions, Shingles]:
    """(text, hash) of every shingle of every text, repeats too."""
    tokens, lengths = _tokens(texts)
    ends = np.cumsum(lengths)
    n_runs = max(len(tokens) - width + 1, 0)
    hashes = tokens[:n_runs].copy()
    for offset in range(1, width if n_runs else 0):
        hashes *= _RUN_BASE
        hashes += tokens[offset : offset + n_runs]
    is_whole = np.ones(len(tokens), dtype=bool)
    for offset in range(1, width):  # the last runs of a text reach into the next one
        is_whole[(ends - offset)[lengths >= offset]] = False
    is_whole = is_whole[:n_runs]
    short = np.flatnonzero((lengths > 0) & (lengths < width))
    alone = [_run(tokens[ends[i] - lengths[i] : ends[i]]) for i in short]
    places = np.repeat(np.arange(len(texts), dtype=np.int64), np.maximum(lengths - width + 1, 0))
    hashes = np.concatenate([hashes[is_whole], np.array(alone, dtype=np.uint64)])
    return np.concatenate([places, short]), _mixed(hashes)


def _run(tokens: Shingles) -> np.uint64:
    """The hash of a run that is shorter than a shingle."""
    powers = np.array([pow(_RUN_BASE, n, 1 << 64) for n in reversed(range(len(tokens)))], dtype=np.uint64)
    return np.uint64(np.sum(tokens * powers, dtype=np.uint64))


def _mixed(values: Shingles) -> Shingles:
    """Every bit of a value spread over all of them (the end of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Shingles = values ^ (values >> np.uint64(31))
    return mixed


def _distinct(places: Positions, hashes: Shingles, n_texts: int) -> tuple[Positions, Shingles]:
    """Each shingle once for each text, by shingle, then text: one sort of numbers that hold both."""
    n_bits = np.uint64(max(n_texts - 1, 1).bit_length())
    keys = np.sort(((hashes >> n_bits) << n_bits) | places.astype(np.uint64))
    new = np.ones(len(keys), dtype=bool)
    np.not_equal(keys[1:], keys[:-1], out=new[1:])
    keys = keys[new]
    return (keys & ((np.uint64(1) << n_bits) - np.uint64(1))).astype(np.int64), keys >> n_bits


def _alike(places: Positions, hashes: Shingles, n_texts: int) -> list[list[int]]:
    """Texts grouped by equal sets, each group in order; texts without a shingle are in none."""
    sums = np.zeros(n_texts, dtype=np.uint64)
    np.add.at(sums, places, hashes)
    sizes = np.bincount(places, minlength=n_texts)
    groups: dict[tuple[int, int], list[int]] = {}
    for text, (size, total) in enumerate(zip(sizes.tolist(), sums.tolist(), strict=True)):
        if size:
            groups.setdefault((size, total), []).append(text)
    return list(groups.values())


def _within(members: list[int]) -> list[tuple[int, int]]:
    """The pairs of texts with equal sets; of very many, those with the first."""
    if len(members) > _MAX_ALIKE:
        return [(members[0], other) for other in members[1:]]
    return [(a, b) for i, a in enumerate(members) for b in members[i + 1 :]]


def _shared(places: Positions, hashes: Shingles) -> tuple[Positions, Positions]:
    """(text, shingle's rank from rare to common), by both, of the shingles that more than one text has."""
    starts = np.flatnonzero(np.r_[True, hashes[1:] != hashes[:-1]][: len(hashes)])
    counts = np.diff(np.r_[starts, len(hashes)])
    places = places[np.repeat(counts > 1, counts)]
    counts = counts[counts > 1]
    rank = np.empty(len(counts), dtype=np.int64)
    rank[np.argsort(np.minimum(counts, 65535).astype(np.uint16), kind="stable")] = np.arange(len(counts))
    keys = np.sort(places * len(counts) + np.repeat(rank, counts))
    return np.divmod(keys, max(len(counts), 1))


def _candidates(places: Positions, ids: Positions, sizes: Positions, threshold: float) -> tuple[Positions, Positions]:
    """Pairs (i < j) that share a shingle of their prefixes and whose sizes allow the similarity.

    The shingles that nobody shares come first in a prefix and are not among the `ids`.
    """
    n_shared = np.bincount(places, minlength=len(sizes))
    prefix = sizes - np.ceil(threshold * sizes - _SLACK).astype(np.int64) + 1 - (sizes - n_shared)
    position = np.arange(len(places)) - (np.cumsum(n_shared) - n_shared)[places]
    chosen = position < prefix[places]
    keys = np.sort(ids[chosen] * len(sizes) + places[chosen])
    ids, places = np.divmod(keys, len(sizes))
    known: list[Positions] = [np.zeros(0, dtype=np.int64)]
    for step in range(1, len(ids)):
        same = np.flatnonzero(ids[step:] == ids[:-step])
        if len(same) == 0:
            break
        a, b = places[same], places[same + step]
        fits = threshold * np.maximum(sizes[a], sizes[b]) <= np.minimum(sizes[a], sizes[b]) + _SLACK
        known.append(np.unique(a[fits] * len(sizes) + b[fits]))
    return np.divmod(np.unique(np.concatenate(known)), max(len(sizes), 1))


def _counted(
    pairs: tuple[Positions, Positions], places: Positions, ids: Positions, sizes: Positions, threshold: float
) -> list[tuple[int, int, float]]:
    """The pairs that are alike enough, with their exact similarity."""
    from scipy.sparse import csr_matrix

    ends = np.r_[0, np.cumsum(np.bincount(places, minlength=len(sizes)))]
    shape = (len(sizes), int(ids.max(initial=0)) + 1)
    sets = csr_matrix((np.ones(len(ids), dtype=np.int32), ids, ends), shape=shape)
    found: list[tuple[int, int, float]] = []
    for start in range(0, len(pairs[0]), _CHUNK):
        a, b = pairs[0][start : start + _CHUNK], pairs[1][start : start + _CHUNK]
        common = np.asarray(sets[a].multiply(sets[b]).sum(axis=1)).ravel()
        similarity = common / (sizes[a] + sizes[b] - common)
        enough = similarity >= threshold
        found.extend(zip(a[enough].tolist(), b[enough].tolist(), similarity[enough].tolist(), strict=True))
    return found
