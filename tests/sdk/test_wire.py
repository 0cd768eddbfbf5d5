"""Does a report come back as it was sent, and is everything else refused by the name of its field?"""

from __future__ import annotations

import zlib
from typing import Any

import msgpack
import numpy as np
import pytest
from davy import wire

REPORTER = "7a5b0a2e-6f0b-4c58-9d93-0f3c4e8d2a11"


def make_report() -> wire.Report:
    rng = np.random.default_rng(0)
    counted = wire.WindowCounts(
        segment={"device": "ios", "country": "Österreich"},
        n=40,
        errors=3,
        errors_by_key_bucket=np.bincount([1, 15, 15], minlength=16),
        confidence=np.bincount(rng.integers(0, 100, 37), minlength=100),
        latency=np.bincount(rng.integers(0, 96, 37), minlength=96),
        detections=np.bincount(rng.integers(0, 64, 37), minlength=64),
        embedding=np.full((4, 9), 4),
    )
    return wire.Report(
        reporter=REPORTER,
        sequence=7,
        sent_at=1_700_000_011.5,
        model="products",
        version="v2",
        reference_digest="ab" * 32,
        start=1_700_000_000.0,
        end=1_700_000_010.0,
        windows=[counted, wire.WindowCounts(purpose="pinned")],
    )


def body() -> dict[str, Any]:
    return msgpack.unpackb(wire.encode_report(make_report()))


def test_a_report_comes_back_as_it_was_sent():
    sent = make_report()
    got = wire.decode_report(wire.encode_report(sent))
    assert {k: v for k, v in vars(got).items() if k != "windows"} == {
        k: v for k, v in vars(sent).items() if k != "windows"
    }
    for mine, theirs in zip(sent.windows, got.windows, strict=True):
        for name, value in vars(mine).items():
            assert np.array_equal(getattr(theirs, name), value), name


def test_the_fleet_comes_back_and_is_left_out_where_it_is_unknown():
    assert "fleet" not in body()
    sent = make_report()
    sent.fleet = "shop"
    assert wire.decode_report(wire.encode_report(sent)).fleet == "shop"


@pytest.mark.parametrize("largest", [0, 1, 255, 256, 65535, 65536, 2**32, 2**62])
def test_packed_counts_come_back_exactly(largest):
    counts = np.array([[0, 1], [largest, 2]])
    assert (wire.unpack(wire.pack(counts), (2, 2)) == counts).all()


def test_pack_uses_the_smallest_item_that_holds_the_largest_count():
    assert [wire.pack([n])[0] for n in (255, 256, 65536, 2**32)] == [1, 2, 4, 8]
    with pytest.raises(ValueError, match="negative"):
        wire.pack([-1])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x03",
        b"\x01garbage",
        wire.pack([1, 2, 3]),
        wire.pack([1, 2]) + b"more",
        wire.pack([1, 2])[:-1],
        b"\x08" + zlib.compress(b"\xff" * 16),
        b"\x01" + zlib.compress(bytes(50_000_000)),
    ],
)
def test_unpack_refuses_what_does_not_hold_the_shape(data):
    with pytest.raises(ValueError):
        wire.unpack(data, (2,))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", 2),
        ("schema", True),
        ("reporter", "me"),
        ("reporter", 5),
        ("sequence", -1),
        ("sequence", 2**63),
        ("sequence", 1.0),
        ("sent_at", float("nan")),
        ("sent_at", -5),
        ("sent_at", 10**30 % 2**63),
        ("model", ""),
        ("model", "a\x00b"),
        ("model", "m" * 256),
        ("version", None),
        ("reference_digest", "xyz"),
        ("reference_digest", ""),
        ("to", 1_700_000_000.0),
        ("to", 1_700_009_999.0),
        ("windows", {}),
        ("windows", [{}] * 201),
        ("fleet", "f" * 64),
        ("fleet", 5),
        ("more", 1),
    ],
)
def test_a_wrong_field_is_named(field, value):
    with pytest.raises(wire.WireError) as caught:
        wire.decode_report(msgpack.packb({**body(), field: value}))
    assert caught.value.pointer == f"/{field}"


@pytest.mark.parametrize("field", sorted(body()))
def test_a_missing_field_is_named(field):
    sent = body()
    del sent[field]
    with pytest.raises(wire.WireError, match="missing") as caught:
        wire.decode_report(msgpack.packb(sent))
    assert caught.value.pointer == f"/{field}"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("purpose", "lively"),
        ("segment", {"device": 3}),
        ("segment", {"device": "a\nb"}),
        ("segment", {"device": "x" * 250}),
        ("n", -1),
        ("n", False),
        ("n", 10),
        ("errors", 41),
        ("errors_by_key_bucket", wire.pack([1] * 16)),
        ("confidence", wire.pack([1] * 99)),
        ("confidence", [1] * 100),
        ("latency", b"\x01" + zlib.compress(bytes(10_000_000))),
        ("detections", wire.pack([9] * 64)),
        ("embedding", [4, 9]),
        ("embedding", [4, 8, wire.pack([[4] * 9] * 4)]),
        ("embedding", [10**6, 10**6, b"\x01"]),
        ("embedding", [2, 2, wire.pack([[1, 2], [3, 4]])]),
        ("more", 1),
    ],
)
def test_a_wrong_field_of_a_window_is_named(field, value):
    sent = body()
    sent["windows"][0][field] = value
    with pytest.raises(wire.WireError) as caught:
        wire.decode_report(msgpack.packb(sent))
    assert caught.value.pointer.startswith("/windows/0/")
    if field != "n":
        assert caught.value.pointer == f"/windows/0/{field}"


def test_two_windows_of_the_same_segment_or_of_unlike_shapes_are_refused():
    sent = body()
    sent["windows"][1] = sent["windows"][0]
    with pytest.raises(wire.WireError, match="came before"):
        wire.decode_report(msgpack.packb(sent))
    sent["windows"][1] = {**sent["windows"][0], "segment": {}, "embedding": [4, 8, wire.pack([[4] * 8] * 4)]}
    with pytest.raises(wire.WireError, match="differs"):
        wire.decode_report(msgpack.packb(sent))


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x80\x80", b"\x91" * 5000, b"[]", msgpack.packb([1]), b"\xdf\xff"]
)
def test_what_is_not_a_map_is_refused(data):
    with pytest.raises(wire.WireError) as caught:
        wire.decode_report(data)
    assert caught.value.pointer in {"", "/schema"}


def test_a_body_or_counts_beyond_the_limit_are_refused():
    data = wire.encode_report(make_report())
    with pytest.raises(wire.WireError, match="bytes"):
        wire.decode_report(data, max_bytes=len(data) - 1)
    sent = body()
    sent["windows"][0]["embedding"] = [500, 4000, wire.pack(np.zeros((500, 4000)))]
    with pytest.raises(wire.WireError, match="too large"):
        wire.decode_report(msgpack.packb(sent), max_bytes=10_000_000)


def test_a_segment_key_does_not_depend_on_the_order():
    assert (
        wire.segment_key({"b": "2", "a": "1"})
        == wire.segment_key({"a": "1", "b": "2"})
        == '{"a":"1","b":"2"}'
    )
    assert wire.segment_key({}) == ""
