"""What does a collector's report look like on the wire?

A report carries all windows (one per purpose and segment) of one interval of one reporter, as msgpack. Counts
are packed by `pack`. `decode_report` trusts nothing: sizes are bounded before anything is unpacked, and every
wrong field is named.
"""

from __future__ import annotations

import json
import math
import uuid
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgpack
import numpy as np
from numpy.typing import ArrayLike

from davy.counting import CONFIDENCE_BINS, DETECTION_BINS, KEY_BUCKETS, LATENCY_BINS, Counts

SCHEMA = 1
CONTENT_TYPE = "application/msgpack"
PURPOSES = ("live", "pinned", "shadow")
MAX_WINDOWS = 200
MAX_BYTES = 64 * 2**20
MAX_COUNT = 2**48  # no sum of 10,000 of them overflows
MAX_INTERVAL_SECONDS = 3600.0
MAX_TIME = 4_102_444_800.0  # the year 2100
MAX_NAME = 255
MAX_FLEET = 63
MAX_SEGMENT_KEY = 255
MAX_EMBEDDING_ROWS = 513
MAX_EMBEDDING_BINS = 4096
_ITEM_SIZES = (1, 2, 4, 8)


class WireError(ValueError):
    """A report that cannot be accepted: a JSON pointer to the field, and what is wrong with it."""

    def __init__(self, pointer: str, detail: str) -> None:
        super().__init__(f"{pointer or '/'}: {detail}")
        self.pointer = pointer
        self.detail = detail


def _zeros(bins: int) -> Callable[[], Counts]:
    return lambda: np.zeros(bins, np.int64)


@dataclass(eq=False)
class WindowCounts:
    """Counts of one purpose and segment over the report's interval; errors are in n and in no histogram.

    errors_by_key_bucket (16,), confidence (100,), latency (96,), detections (64,) or None,
    embedding (k+1, B) or None; all int64. See davy.counting and davy.reference for the bins.
    """

    purpose: str = "live"
    segment: dict[str, str] = field(default_factory=dict)
    n: int = 0
    errors: int = 0
    errors_by_key_bucket: Counts = field(default_factory=_zeros(KEY_BUCKETS))
    confidence: Counts = field(default_factory=_zeros(CONFIDENCE_BINS))
    latency: Counts = field(default_factory=_zeros(LATENCY_BINS))
    detections: Counts | None = None
    embedding: Counts | None = None

    def add(self, other: WindowCounts) -> None:
        """Add the counts of `other`, which are of the same purpose, segment and reference."""
        self.n += other.n
        self.errors += other.errors
        self.errors_by_key_bucket += other.errors_by_key_bucket
        self.confidence += other.confidence
        self.latency += other.latency
        self.detections = _sum(self.detections, other.detections)
        self.embedding = _sum(self.embedding, other.embedding)


def _sum(mine: Counts | None, theirs: Counts | None) -> Counts | None:
    """Both counts added, in place where possible; None is nothing counted."""
    if mine is None or theirs is None:
        return mine if theirs is None else theirs.copy()
    mine += theirs
    return mine


@dataclass(eq=False)
class Report:
    """All windows of one interval [start, end) (unix seconds) of one reporter (a UUID per process start)."""

    reporter: str
    sequence: int
    sent_at: float
    model: str
    version: str
    reference_digest: str  # "" when no embeddings were counted
    start: float
    end: float
    windows: list[WindowCounts]
    schema: int = SCHEMA
    fleet: str = ""  # that the reporter serves in; "" when it does not know, and then the field is left out


def segment_key(segment: Mapping[str, str]) -> str:
    """The canonical text of a segment, the same for the same pairs in any order; "" for no segment."""
    if not segment:
        return ""
    return json.dumps(dict(segment), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def pack(counts: ArrayLike, level: int = 6) -> bytes:
    """Non-negative counts as bytes: the item size (1, 2, 4 or 8), then zlib (`level`) of little-endian integers."""
    array = np.asarray(counts, np.int64)
    largest = int(array.max(initial=0))
    if array.min(initial=0) < 0:
        raise ValueError("a count is negative")
    size = next(size for size in _ITEM_SIZES if largest < 256**size)
    return bytes([size]) + zlib.compress(array.astype(f"<u{size}").tobytes(), level)


def unpack(data: bytes, shape: tuple[int, ...]) -> Counts:
    """The int64 counts of `shape` in `data`; ValueError when it holds anything else, however much."""
    size = data[0] if data else 0
    if size not in _ITEM_SIZES:
        raise ValueError(f"item size {size} is not 1, 2, 4 or 8")
    expected = math.prod(shape) * size
    inflate = zlib.decompressobj()
    try:
        raw = inflate.decompress(data[1:], expected + 1)
    except zlib.error as err:
        raise ValueError(f"not zlib: {err}") from None
    if len(raw) != expected or not inflate.eof or inflate.unused_data:
        raise ValueError(f"does not hold {math.prod(shape)} counts of {size} bytes")
    counts = np.frombuffer(raw, f"<u{size}").reshape(shape).astype(np.int64)
    if counts.min(initial=0) < 0:
        raise ValueError("a count is beyond 2^63")
    return counts


def encode_report(report: Report) -> bytes:
    """The report as msgpack."""
    head = {
        "schema": report.schema,
        "reporter": report.reporter,
        "sequence": report.sequence,
        "sent_at": report.sent_at,
        "model": report.model,
        "version": report.version,
        "reference_digest": report.reference_digest,
        "from": report.start,
        "to": report.end,
        "windows": [_encode_window(window) for window in report.windows],
    }
    return bytes(msgpack.packb(head | {"fleet": report.fleet} if report.fleet else head))


def restamp(data: bytes, sent_at: float, *, embeddings: bool = True) -> bytes:
    """An encoded report with another `sent_at` (a report that waited would look like a clock that is off).

    embeddings=False also takes the embedding counts out, for a server that does not know their reference.
    """
    body: dict[str, Any] = msgpack.unpackb(data)
    body["sent_at"] = sent_at
    if not embeddings:
        body["reference_digest"] = ""
        for window in body["windows"]:
            window["embedding"] = None
    return bytes(msgpack.packb(body))


def _encode_window(window: WindowCounts) -> dict[str, Any]:
    embedding = window.embedding
    return {
        "purpose": window.purpose,
        "segment": window.segment,
        "n": window.n,
        "errors": window.errors,
        "errors_by_key_bucket": pack(window.errors_by_key_bucket),
        "confidence": pack(window.confidence),
        "latency": pack(window.latency),
        "detections": None if window.detections is None else pack(window.detections),
        "embedding": None if embedding is None else [*embedding.shape, pack(embedding)],
    }


def decode_report(data: bytes, max_bytes: int = MAX_BYTES) -> Report:
    """The report in `data`; WireError naming the field when anything is missing, wrong, unknown or too large.

    max_bytes bounds both the body and the counts it unpacks to (8 bytes each).
    """
    if len(data) > max_bytes:
        raise WireError("", f"{len(data)} bytes, at most {max_bytes} are accepted")
    try:
        body = msgpack.unpackb(data, strict_map_key=True)
    except (ValueError, msgpack.UnpackException) as err:
        raise WireError("", f"not msgpack: {err or type(err).__name__}") from None
    fields = _Fields(body, "")
    if fields.integer("schema") != SCHEMA:
        raise WireError("/schema", f"this server reads schema {SCHEMA}")
    report = Report(
        reporter=_uuid(fields.text("reporter")),
        sequence=fields.integer("sequence", 2**63 - 1),
        sent_at=fields.time("sent_at"),
        model=fields.text("model"),
        version=fields.text("version"),
        reference_digest=_digest(fields.take("reference_digest", str)),
        start=fields.time("from"),
        end=fields.time("to"),
        windows=_decode_windows(fields.take("windows", list), max_bytes),
        fleet=fields.text("fleet", MAX_FLEET) if fields.has("fleet") else "",
    )
    fields.nothing_else()
    if not 0 < report.end - report.start <= MAX_INTERVAL_SECONDS:
        raise WireError("/to", f"not after /from by at most {MAX_INTERVAL_SECONDS:.0f} s")
    if not report.reference_digest and any(w.embedding is not None for w in report.windows):
        raise WireError("/reference_digest", "empty, but embeddings are counted")
    return report


def _decode_windows(items: list[Any], max_bytes: int) -> list[WindowCounts]:
    if len(items) > MAX_WINDOWS:
        raise WireError("/windows", f"{len(items)} windows, at most {MAX_WINDOWS} are accepted")
    windows: list[WindowCounts] = []
    seen: set[tuple[str, str]] = set()
    shape: tuple[int, ...] | None = None
    room = max_bytes
    for index, item in enumerate(items):
        window = _decode_window(_Fields(item, f"/windows/{index}"), room)
        if window.embedding is not None:
            shape = shape or window.embedding.shape
            room -= window.embedding.nbytes
            if window.embedding.shape != shape:
                raise WireError(f"/windows/{index}/embedding", f"shape differs from {shape} before it")
        identity = (window.purpose, segment_key(window.segment))
        if identity in seen:
            raise WireError(f"/windows/{index}/segment", "the same purpose and segment came before")
        seen.add(identity)
        windows.append(window)
    return windows


def _decode_window(fields: _Fields, room: int) -> WindowCounts:
    purpose = fields.text("purpose")
    if purpose not in PURPOSES:
        raise WireError(f"{fields.pointer}/purpose", f"not one of {', '.join(PURPOSES)}")
    n = fields.integer("n", MAX_COUNT)
    errors = fields.integer("errors", n)
    window = WindowCounts(
        purpose=purpose,
        segment=_segment(fields),
        n=n,
        errors=errors,
        errors_by_key_bucket=fields.counts("errors_by_key_bucket", KEY_BUCKETS, errors),
        confidence=fields.counts("confidence", CONFIDENCE_BINS, n),
        latency=fields.counts("latency", LATENCY_BINS, n),
        detections=fields.counts("detections", DETECTION_BINS, n) if fields.has("detections") else None,
        embedding=fields.embedding("embedding", n, room) if fields.has("embedding") else None,
    )
    fields.nothing_else()
    return window


def _segment(fields: _Fields) -> dict[str, str]:
    pointer = f"{fields.pointer}/segment"
    segment: dict[str, str] = fields.take("segment", dict)
    for name, value in segment.items():
        if not isinstance(name, str) or not isinstance(value, str) or not clean(name) or not clean(value):
            raise WireError(pointer, "not a map of printable text to printable text")
    if len(segment_key(segment)) > MAX_SEGMENT_KEY:
        raise WireError(pointer, f"longer than {MAX_SEGMENT_KEY} characters as JSON")
    return segment


def clean(text: str) -> bool:
    """Whether `text` may be stored: no control characters (PostgreSQL refuses NUL), no lone surrogates."""
    return text.isprintable()


def _uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise WireError("/reporter", "not a UUID") from None


def _digest(text: str) -> str:
    if text and (len(text) != 64 or set(text) - set("0123456789abcdef")):
        raise WireError("/reference_digest", "neither empty nor 64 hexadecimal digits")
    return text


class _Fields:
    """Takes typed fields out of a decoded map and names the one that is wrong."""

    def __init__(self, body: Any, pointer: str) -> None:
        if not isinstance(body, dict):
            raise WireError(pointer, "not a map")
        self.body: dict[Any, Any] = dict(body)
        self.pointer = pointer

    def has(self, name: str) -> bool:
        """Whether the field is there and not nil; nil is taken."""
        if self.body.get(name) is None:
            self.body.pop(name, None)
            return False
        return True

    def take(self, name: str, kind: type) -> Any:
        """The field, of exactly this type (a bool is no integer)."""
        if name not in self.body:
            raise WireError(f"{self.pointer}/{name}", "missing")
        value = self.body.pop(name)
        if type(value) is not kind:
            raise WireError(f"{self.pointer}/{name}", f"{type(value).__name__}, want {kind.__name__}")
        return value

    def text(self, name: str, most: int = MAX_NAME) -> str:
        """A printable text of 1 to `most` characters."""
        value: str = self.take(name, str)
        if not 0 < len(value) <= most or not clean(value):
            raise WireError(f"{self.pointer}/{name}", f"not printable text of 1 to {most} characters")
        return value

    def integer(self, name: str, largest: int = 2**31) -> int:
        """An integer from 0 to `largest`."""
        value: int = self.take(name, int)
        if not 0 <= value <= largest:
            raise WireError(f"{self.pointer}/{name}", f"{value} is not from 0 to {largest}")
        return value

    def time(self, name: str) -> float:
        """Unix seconds between 1970 and 2100."""
        value = self.body.get(name)
        if type(value) is int:
            self.body[name] = float(value) if abs(value) < MAX_TIME else math.inf
        seconds: float = self.take(name, float)
        if not 0 <= seconds < MAX_TIME:
            raise WireError(f"{self.pointer}/{name}", f"{seconds} is no time between 1970 and 2100")
        return seconds

    def counts(self, name: str, bins: int, most: int) -> Counts:
        """(bins,) packed counts that add up to at most `most`."""
        return self._unpack(name, self.take(name, bytes), (bins,), most)

    def embedding(self, name: str, most: int, room: int) -> Counts:
        """(k+1, B) packed counts in at most `room` bytes; all rows have the same sum, at most `most`."""
        pointer = f"{self.pointer}/{name}"
        value = self.take(name, list)
        if len(value) != 3 or type(value[0]) is not int or type(value[1]) is not int:
            raise WireError(pointer, "not [rows, bins, counts]")
        rows, bins, data = value
        if not (2 <= rows <= MAX_EMBEDDING_ROWS and 2 <= bins <= MAX_EMBEDDING_BINS):
            raise WireError(pointer, f"shape ({rows}, {bins}) is out of bounds")
        if rows * bins * 8 > room:
            raise WireError(pointer, "the report's counts are too large")
        return self._unpack(name, data, (rows, bins), most)

    def _unpack(self, name: str, data: Any, shape: tuple[int, ...], most: int) -> Counts:
        pointer = f"{self.pointer}/{name}"
        if not isinstance(data, bytes):
            raise WireError(pointer, "counts are not bytes")
        try:
            counts = unpack(data, shape)
        except ValueError as err:
            raise WireError(pointer, str(err)) from None
        if counts.max(initial=0) > MAX_COUNT:
            raise WireError(pointer, f"a count is above {MAX_COUNT}")
        sums = np.unique(counts.sum(axis=-1))
        if len(sums) != 1 or sums[0] > most:
            raise WireError(
                pointer, f"counts add up to {sums.tolist()[:3]}, want one number of at most {most}"
            )
        return counts

    def nothing_else(self) -> None:
        """WireError when the map holds fields that nobody took."""
        if self.body:
            raise WireError(f"{self.pointer}/{next(iter(self.body))}", "unknown field")
