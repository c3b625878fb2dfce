"""Crops of one photograph: pictures that share pixels at a shift, whatever their names and files.

Corners of every picture are described by the patch around them: 128 comparisons of two grey values (BRIEF,
Calonder et al. 2010), which neither a shift nor another brightness changes. Patches that differ in few bits
are found by sorting, so that time grows with the number of pictures and not with its square. Pairs of
pictures in which several patches agree on one shift are candidates, and each is compared pixel by pixel at
full size.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from yolor_core.data.images import ImageSet, Pixels
from yolor_core.errors import ConfigError
from yolor_core.runs.directory import write_json

SHARE = 0.25  # of the smaller picture's pixels, from which on two pictures overlap

# Finding candidates. What they find is measured in docs/data-check.md.
MOST_PIXELS = 640 * 640  # of the median picture; all are halved until it has no more
POINTS, FEWEST_POINTS, ALL_POINTS = 200, 50, 4_000_000  # corners: of a picture, at least, of all pictures
REACH = 10  # pixels from a corner to the edge of its patch
BITS = 128
BIT_ERRORS = 16  # that two patches of the same place may have
NEIGHBOURS = 8  # after a patch, in each sorted order, that it is compared with
TURNS = ((0, 0), (1, 0), (0, 32), (1, 32))  # sorted orders: which word of the bits, rotated by how many
CELL = 4  # pixels within which shifts agree
VOTES = 3  # patches that have to agree
SHIFTS = 3  # looked at for each pair of pictures, those of most votes
MOST_PAIRS = 50  # of a picture; beyond, pairs of pictures that are in one group already are not looked at
BATCH = 2**20  # patches or votes at a time

# Comparing pixels.
FINE, COARSE = 1.2, 4.0  # pixels, deviations of Gaussians: what is finer differs by coding, coarser by light
CORRELATION = 0.8  # of the texture of the overlap
BLOCK = 16  # pixels; the overlap is judged block by block, too, as a caption may outweigh all the rest
TELLING = 0.7  # of 255: the deviation of the texture from which on a block says something
ALIKE, MOST_ALIKE = 0.5, 0.9  # correlation of a block; the share of the telling blocks that have it
EVIDENCE = 1 / 20  # of the smaller picture: blocks that say something
LIGHT = 2.0  # mean, of 255: coarse grey values differ by less where brightness and contrast are fitted
REPEATED = 8  # pixels; what is like itself at a larger shift is a pattern
REGULAR = 0.97  # correlation of a pattern with itself from which on it proves nothing
WHOLE = 256  # pixels of the long side at which whole pictures of different sizes are compared
CACHE = 2**28  # bytes of decoded pictures that are kept

Grey = NDArray[np.float32]
Ints = NDArray[np.int64]
Each = Callable[[str, Sequence[Any]], Iterable[Any]]


def everything(what: str, items: Sequence[Any]) -> Iterable[Any]:
    """What goes through items of a step of the work, here without showing how far it is."""
    return items


class Match(NamedTuple):
    """What two pictures have in common.

    share: of the pixels of the smaller one; dx, dy: a pixel (x, y) of the one is (x + dx, y + dy) of the
    other, where they have one scale; light: whether the same place was taken again in another light (or its
    brightness changed beyond a factor), as the pixels differ by more than coding; mirrored: left and right.
    """

    share: float
    dx: int = 0
    dy: int = 0
    light: bool = False
    mirrored: bool = False

    def turned(self) -> Match:
        """The same seen from the other picture."""
        return self._replace(dx=-self.dx, dy=-self.dy)

    def __str__(self) -> str:
        how = f", shifted by {self.dx}, {self.dy}" if self.dx or self.dy else ", mirrored" * self.mirrored
        return f"{100 * self.share:.0f} %{how}{', in another light' * self.light}"


def _pattern() -> NDArray[np.int64]:
    """Two points (x, y) for every bit, from a Gaussian about the corner: int64 (BITS, 2, 2)."""
    drawn = np.random.Generator(np.random.PCG64(0)).normal(0, REACH / 2, (BITS, 2, 2))
    return np.clip(np.rint(drawn), -REACH, REACH).astype(np.int64)


@dataclass
class Corners:
    """The corners of all pictures, in order.

    pixels: of the median picture; count: of pictures to come, from which the number of corners follows.
    """

    pixels: float
    count: int
    codes: list[NDArray[np.uint64]] = field(default_factory=list)
    places: list[NDArray[np.int16]] = field(default_factory=list)
    halvings: int = field(init=False)
    radius: int = field(init=False)

    def __post_init__(self) -> None:
        self.halvings = max(0, int(np.ceil(np.log2(max(self.pixels, 1) / MOST_PIXELS) / 2)))
        wanted = min(POINTS, max(FEWEST_POINTS, ALL_POINTS / max(1, self.count)))
        spacing = np.sqrt(self.pixels / 4**self.halvings / wanted)
        self.radius = max(2, int(spacing / 2.6))  # maxima over squares of this radius lie about so far apart
        self._pattern = _pattern()

    def add(self, pixels: Pixels | None) -> None:
        """The next picture, RGB (height, width, 3); None, one that cannot be decoded, has no corners."""
        if pixels is None:
            self.codes.append(np.zeros((0, 2), np.uint64))
            self.places.append(np.zeros((0, 2), np.int16))
            return
        image = grey(pixels)
        for _ in range(self.halvings):
            half = (max(1, image.shape[1] // 2), max(1, image.shape[0] // 2))
            image = np.asarray(cv2.resize(image, half, interpolation=cv2.INTER_AREA), np.uint8)
        smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.5)
        xx, yy = cv2.Sobel(smooth, cv2.CV_32F, 2, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 2)
        xy = cv2.Sobel(smooth, cv2.CV_32F, 1, 1)
        strength = np.abs(xx * yy - xy * xy)
        side = 2 * self.radius + 1
        top = (strength >= cv2.dilate(strength, np.ones((side, side), np.uint8))) & (strength > 1)
        inner = np.zeros_like(top)
        inner[REACH:-REACH, REACH:-REACH] = top[REACH:-REACH, REACH:-REACH]
        flat, width = np.flatnonzero(inner), inner.shape[1]
        offsets = self._pattern @ (1, width)
        values = cv2.GaussianBlur(smooth, (0, 0), 1.5).ravel()
        bits = values[flat[:, None] + offsets[:, 0]] < values[flat[:, None] + offsets[:, 1]]
        self.codes.append(np.packbits(bits, axis=1).view(np.uint64))
        self.places.append(np.stack([flat % width, flat // width], axis=1).astype(np.int16))

    def candidates(self, each: Each = everything) -> Ints:
        """Pairs of pictures with a shift that VOTES patches or more agree on, most votes first.

        int64 (n, 5): one < other, votes, dx, dy in pixels of the pictures.
        """
        codes = np.concatenate([np.zeros((0, 2), np.uint64), *self.codes])
        places = np.concatenate([np.zeros((0, 2), np.int16), *self.places])
        picture = np.repeat(np.arange(len(self.codes), dtype=np.int32), [len(each) for each in self.codes])
        found = [np.zeros(0, np.int64)]
        for word, turn in each("matching patches", TURNS):
            found.append(_alike(codes, picture, word, turn))
        one, other = np.divmod(_distinct(np.concatenate(found)), max(1, len(codes)))
        return _votes(picture[one], picture[other], places[other] - places[one], self.halvings)


def grey(pixels: Pixels) -> Pixels:
    """Grey values (height, width) of RGB pixels."""
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)


def _alike(codes: NDArray[np.uint64], picture: NDArray[np.int32], word: int, turn: int) -> Ints:
    """Pairs of patches of different pictures that are near in one order and differ in few bits, each as
    one * len(codes) + other, one < other."""
    key = codes[:, word]
    if turn:
        key = (key << np.uint64(turn)) | (key >> np.uint64(64 - turn))
    order = np.argsort(key, kind="stable")
    found = [np.zeros(0, np.int64)]
    for begin in range(0, len(order), BATCH):
        rows = order[begin : begin + BATCH + NEIGHBOURS]
        ours, images = codes[rows], picture[rows]
        for apart in range(1, NEIGHBOURS + 1):
            first = slice(0, max(0, min(BATCH, len(rows) - apart)))
            second = slice(apart, apart + first.stop)
            differ = np.bitwise_count(ours[first] ^ ours[second])
            near = np.flatnonzero(
                (differ[:, 0] + differ[:, 1] <= BIT_ERRORS) & (images[first] != images[second])
            )
            one, other = rows[near], rows[near + apart]
            found.append(np.minimum(one, other) * len(codes) + np.maximum(one, other))
    return _distinct(np.concatenate(found))


def _votes(one: NDArray[np.int32], other: NDArray[np.int32], shift: NDArray[np.int16], halvings: int) -> Ints:
    """What `Corners.candidates` returns, from pairs of patches: their pictures (n,) and shifts (n, 2)."""
    count = int(other.max(initial=0)) + 1
    pair, shifts = _grouped(one.astype(np.int64) * count + other, shift.astype(np.int64))
    begin, sizes = _runs(pair)
    kept = np.repeat(sizes >= VOTES, sizes)
    shifts, pairs = shifts[kept], pair[begin[sizes >= VOTES]]
    rank = np.repeat(np.arange(len(pairs)), sizes[sizes >= VOTES])  # of the pair, in fewer bits
    tables = [np.zeros((0, 4), np.int64)]
    for across in (0, CELL // 2):  # a shift at the edge of a cell is in the middle of another
        for down in (0, CELL // 2):
            cell = (shifts + np.array([across, down])) // CELL + 2**14
            key, inside = _grouped((rank << 30) | (cell[:, 0] << 15) | cell[:, 1], shifts)
            begin, votes = _runs(key)
            many = votes >= VOTES
            sums = np.add.reduceat(inside, begin, axis=0)[many] if len(begin) else np.zeros((0, 2))
            mean = np.rint(sums / votes[many, None]).astype(np.int64)
            tables.append(np.column_stack([key[begin[many]] >> 30, votes[many], mean]))
    table = np.unique(np.concatenate(tables), axis=0)
    table = table[np.lexsort((-table[:, 1], table[:, 0]))]
    begin, sizes = _runs(table[:, 0])
    table = table[np.arange(len(table)) - np.repeat(begin, sizes) < SHIFTS]
    table = table[np.argsort(-table[:, 1], kind="stable")]
    first, second = np.divmod(pairs[table[:, 0]], count)
    return np.column_stack([first, second, table[:, 1], table[:, 2:] << halvings])


def _grouped(key: Ints, values: Ints) -> tuple[Ints, Ints]:
    order = np.argsort(key, kind="stable")
    return key[order], values[order]


def _runs(ordered: Ints) -> tuple[Ints, Ints]:
    """Where runs of equal values begin, and their lengths."""
    begin = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))
    return begin, np.diff(begin, append=len(ordered))


def _distinct(values: Ints) -> Ints:
    """As np.unique, by sorting: numpy's hash table is many times slower for such numbers."""
    ordered = np.sort(values)
    return ordered[_runs(ordered)[0]]


def compare(one: Pixels, other: Pixels, dx: int, dy: int, window: int = CELL) -> Match | None:
    """What two grey pictures (height, width) have in common at a shift within `window` pixels of (dx, dy).

    None where it is less than SHARE, looks different, or proves nothing: flat, or a pattern that repeats.
    """
    ours, theirs = _overlap(one.shape, other.shape, dx, dy)
    sides = one[ours].shape
    if min(sides) < 2 * window + BLOCK:
        return None
    inner = texture(one[ours])[window : sides[0] - window, window : sides[1] - window]
    scores = cv2.matchTemplate(texture(other[theirs]), inner, cv2.TM_CCOEFF_NORMED)
    down, across = divmod(int(np.nan_to_num(scores, nan=-1.0).argmax()), scores.shape[1])
    dx, dy = dx + across - window, dy + down - window
    ours, theirs = _overlap(one.shape, other.shape, dx, dy)
    smaller = min(one.size, other.size)
    if one[ours].size < SHARE * smaller:
        return None
    light = same(one[ours], other[theirs], smaller)
    return None if light is None else Match(one[ours].size / smaller, dx, dy, light)


def compare_whole(one: Pixels, other: Pixels) -> Match | None:
    """Whether two grey pictures of any sizes are one, or one the mirror image of the other."""
    scale = min(1.0, WHOLE / max(one.shape), WHOLE / max(other.shape), *np.divide(other.shape, one.shape))
    size = (max(1, round(one.shape[1] * scale)), max(1, round(one.shape[0] * scale)))
    resized = (cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in (one, other))
    a, b = (np.asarray(each, np.uint8) for each in resized)
    for mirrored in (False, True):
        light = same(a, np.ascontiguousarray(b[:, ::-1]) if mirrored else b, a.size)
        if light is not None:
            return Match(1.0, light=light, mirrored=mirrored)
    return None


def same(one: Pixels, other: Pixels, smaller: int) -> bool | None:
    """Whether two grey pictures of one size show the same place, but for coding: None: no; False: yes, and
    the pixels are the same but for brightness and contrast; True: yes, in another light.

    smaller: the number of pixels of the smaller whole picture that these are parts of.
    """
    fine, others = texture(one), texture(other)
    spreads = float((fine * fine).mean()), float((others * others).mean())
    if float((fine * others).mean()) < CORRELATION * max(np.sqrt(spreads[0] * spreads[1]), 1e-9):
        return None
    ours, theirs, both = _blocks(fine * fine), _blocks(others * others), _blocks(fine * others)
    telling = np.minimum(ours, theirs) >= TELLING**2
    if telling.sum() * BLOCK**2 < EVIDENCE * smaller:
        return None
    alike = both[telling] > ALIKE * np.sqrt(ours[telling] * theirs[telling])
    if alike.mean() < MOST_ALIKE:
        return None
    even = [_even(fine), _even(others)]
    correlation, repetition = np.corrcoef(even[0].ravel(), even[1].ravel())[0, 1], _repetition(even[0])
    if repetition > REGULAR or 1 - correlation > (1 - repetition) / 2:
        return None
    a, b = (cv2.GaussianBlur(each.astype(np.float32), (0, 0), COARSE).ravel() for each in (one, other))
    if a.std() < b.std():  # fitted to the flatter of the two
        a, b = b, a
    slope = np.cov(a, b, bias=True)[0, 1] / max(float(a.var()), 1e-9)
    return bool(np.abs(b - b.mean() - slope * (a - a.mean())).mean() > LIGHT)


def texture(image: Pixels) -> Grey:
    """float32 (height, width): what is between FINE and COARSE of grey values."""
    values = image.astype(np.float32)
    fine, coarse = (cv2.GaussianBlur(values, (0, 0), deviation) for deviation in (FINE, COARSE))
    return np.asarray(fine - coarse, np.float32)


def _overlap(
    one: tuple[int, ...], other: tuple[int, ...], dx: int, dy: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Rows and columns that two pictures of such shapes share at a shift, in each of them; may be empty."""
    ours, theirs = [], []
    for side, reach, shift in ((one[0], other[0], dy), (one[1], other[1], dx)):
        begin, end = max(0, -shift), max(max(0, -shift), min(side, reach - shift))
        ours.append(slice(begin, end))
        theirs.append(slice(begin + shift, end + shift))
    return (ours[0], ours[1]), (theirs[0], theirs[1])


def _even(fine: Grey) -> Grey:
    """A texture with its peaks cut off, so that one bright line does not decide."""
    size = np.abs(fine)
    most = max(2 * float(np.median(size)), float(size.mean()))
    return np.asarray(fine.clip(-most, most), np.float32)


def _blocks(values: Grey) -> Grey:
    """Means of the whole blocks of a picture."""
    rows, columns = (side // BLOCK for side in values.shape)
    whole = values[: rows * BLOCK, : columns * BLOCK]
    return np.asarray(whole.reshape(rows, BLOCK, columns, BLOCK).mean((1, 3)), np.float32)


def _repetition(fine: Grey) -> float:
    """The highest correlation of the middle of a texture with itself at a shift of more than REPEATED."""
    rows, columns = (min(side, 128) for side in fine.shape)
    top, left = (fine.shape[0] - rows) // 2, (fine.shape[1] - columns) // 2
    middle = fine[top : top + rows, left : left + columns]
    window = np.outer(np.hanning(rows + 2)[1:-1], np.hanning(columns + 2)[1:-1]).astype(np.float32)
    powers = (np.abs(np.fft.rfft2(each)) ** 2 for each in (window * (middle - middle.mean()), window))
    products, weights = (np.fft.irfft2(power, (rows, columns)) for power in powers)
    correlation = np.asarray(products / weights / max(products[0, 0] / weights[0, 0], 1e-9))
    near = np.abs(np.fft.fftfreq(rows, 1 / rows))[:, None] ** 2 + np.fft.fftfreq(columns, 1 / columns) ** 2
    return float(correlation[near > REPEATED**2].max(initial=0.0))


class Near:
    """Pictures of splits that overlap, and the groups that they make.

    `add` takes the pictures in order, then `find` the pairs. matches: what was found, by the numbers of two
    pictures over all splits, the smaller first.
    """

    def __init__(self, splits: Mapping[str, ImageSet], each: Each = everything) -> None:
        self.splits, self.each = splits, each
        self.places = [(split, index) for split, images in splits.items() for index in range(len(images))]
        sizes = np.concatenate([images.sizes for images in splits.values()])
        self.corners = Corners(float(np.median(sizes.prod(axis=1))) if len(sizes) else 1, len(self.places))
        self.matches: dict[tuple[int, int], Match] = {}
        self._files = [(split, splits[split].files[index]) for split, index in self.places]
        self._first = dict(zip(splits, np.cumsum([0, *map(len, splits.values())]).tolist(), strict=False))
        self._group = list(range(len(self.places)))  # by number: another one of the group, or itself
        self._kept = max(8, int(CACHE / max(self.corners.pixels, 1)))

    def add(self, pixels: Pixels | None) -> None:
        """The next picture, RGB (height, width, 3); None for one that cannot be decoded."""
        self.corners.add(pixels)

    def number(self, split: str, index: int) -> int:
        """The number of a picture over all splits."""
        return int(self._first[split]) + index

    def find(self, copies: Iterable[tuple[int, int]], looks: Iterable[tuple[int, int]]) -> None:
        """Compare pictures: `copies` are pairs of equal pixels, `looks` pairs that may be one whole picture.

        The reports of the splits then say how many pictures overlap. A picture of MOST_PAIRS pairs is
        compared no further with those of its group, so that a film takes no time by its length squared.
        """
        greys = lru_cache(maxsize=self._kept)(self._grey)
        pairs = np.zeros((len(self.places), 2), np.int64)  # within splits and across
        for one, other in copies:
            self._join(one, other, Match(1.0))
        for one, other in self.each("comparing whole pictures", list(looks)):
            match = compare_whole(greys(one), greys(other))
            if match is not None:
                self._join(one, other, match)
        refused: dict[tuple[int, int], list[tuple[int, int]]] = {}
        window = CELL << self.corners.halvings
        candidates = self.corners.candidates(self.each).tolist()
        for one, other, _, dx, dy in self.each("comparing pixels", candidates):
            seen = refused.setdefault((one, other), [])
            if (one, other) in self.matches or self._files[one] == self._files[other]:
                continue
            if any(abs(x - dx) + abs(y - dy) < window for x, y in seen):
                continue
            across = int(self.places[one][0] != self.places[other][0])
            many = min(pairs[one, across], pairs[other, across]) >= MOST_PAIRS
            if many and self._root(one) == self._root(other):
                continue
            match = compare(greys(one), greys(other), dx, dy, window)
            if match is None:
                seen.append((dx, dy))
            else:
                self._join(one, other, match)
                pairs[[one, other], across] += 1
        self._report()

    @property
    def count(self) -> int:
        """Groups, those of a single picture among them."""
        return len({self._root(number) for number in range(len(self.places))})

    def groups(self) -> dict[str, Any]:
        """Content of a file of groups: `groups`, by file name, and the `pairs` that chain them.

        Where two splits have a file of one name, names are those of files in the folder of their split.
        """
        names = [name for _, name in self._files]
        if len(set(names)) < len(set(self._files)):
            names = [f"{split}/{name}" for split, name in self._files]
        numbers: dict[int, int] = {}
        return {
            "what": f"images that show {SHARE:.0%} or more of the same picture (of the smaller one's pixels; "
            "matched by shift and compared pixel by pixel), chained into groups; file name -> group. For a "
            "split without twins keep groups whole. light: the same place in another light",
            "groups": {name: numbers.setdefault(self._root(k), len(numbers)) for k, name in enumerate(names)},
            "pairs": [
                {"images": [names[one], names[other]], "share": round(match.share, 4)}
                | {"shift": [match.dx, match.dy], "mirrored": match.mirrored, "light": match.light}
                for (one, other), match in sorted(self.matches.items())
            ],
        }

    def write(self, path: Path) -> None:
        """Write `groups` to a file that is not there."""
        write_json(path, self.groups())

    def _grey(self, number: int) -> Pixels:
        split, index = self.places[number]
        pixels = self.splits[split].inspect(index)
        return np.zeros((1, 1), np.uint8) if pixels is None else grey(pixels)  # deleted meanwhile

    def _join(self, one: int, other: int, match: Match) -> None:
        one, other = min(one, other), max(one, other)
        self._group[self._root(other)] = self._root(one)
        if self._files[one] != self._files[other]:  # not a file that is listed twice
            self.matches.setdefault((one, other), match)

    def _root(self, number: int) -> int:
        while self._group[number] != number:
            self._group[number] = number = self._group[self._group[number]]
        return number

    def _report(self) -> None:
        """Count in each report the pictures that overlap an earlier one of the split, or one of another."""
        best: dict[str, dict[int, tuple[Match, int]]] = {"overlaps": {}, "overlap_shared": {}}
        for (one, other), match in self.matches.items():
            within = self.places[one][0] == self.places[other][0]
            found = best["overlaps" if within else "overlap_shared"]
            sides = [(other, one, match.turned()), *([] if within else [(one, other, match)])]
            for here, there, seen in sides:
                rank = (not seen.light, seen.share)
                if here not in found or rank > (not found[here][0].light, found[here][0].share):
                    found[here] = seen, there
        for kind, found in best.items():
            for split, images in self.splits.items():
                rows = sorted(number for number in found if self.places[number][0] == split)
                light = sum(found[number][0].light for number in rows)
                share = 100 * len(rows) / max(1, len(images))
                summary = f"{len(rows)} of {len(images)} images, {share:.1f} %"
                summary += f"; {light} of them in another light alone" if light else ""

                def text(number: int, found: dict[int, tuple[Match, int]] = found, kind: str = kind) -> str:
                    match, there = found[number]
                    other = f"{self._named(there)}{f' of {self.places[there][0]}' * (kind != 'overlaps')}"
                    return f"{self._named(number)} and {other}: {match}"

                images.report.count_rows(kind, np.array(rows, np.int64), text, summary)

    def _named(self, number: int) -> str:
        split, index = self.places[number]
        return f"image {self.splits[split].ids[index]} ({self.splits[split].files[index]})"


def check_new(path: Path) -> None:
    """Raises ConfigError where a file of groups cannot be written: it is there, or its folder takes none."""
    if path.exists():
        raise ConfigError(f"--groups-out {path}: it exists and is not overwritten; remove it or name another")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ConfigError(f"--groups-out {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"--groups-out {path}: the folder {folder} cannot be written to")
