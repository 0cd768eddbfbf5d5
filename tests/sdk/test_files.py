"""Is every value of a history read as it was written, and is a wrong one named by its row and column?"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from davy import files
from davy.files import FileError, columns_of, read_rows
from pyarrow import parquet

from tests.sdk.history_files import T0, WRITERS, rows, write

KINDS = sorted(WRITERS)


def read(path, block=50, dimensions=4, named=None, segments=(), **asked):
    return list(
        read_rows(path, columns_of(path, named, segments), dimensions=dimensions, block=block, **asked)
    )


def joined(blocks, name):
    return np.concatenate([block.columns[name] for block in blocks])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", [1, 50, 1000])
def test_every_format_holds_the_same_rows(tmp_path, kind, block):
    wanted = rows()
    blocks = read(write(tmp_path / f"rows{kind}", wanted), block)
    assert max(len(b.at) for b in blocks) <= block
    assert np.allclose(np.concatenate([b.at for b in blocks]), wanted["at"], rtol=0, atol=1e-6)
    assert np.allclose(joined(blocks, "confidences"), wanted["confidence"])
    assert np.allclose(joined(blocks, "latency_seconds"), wanted["latency_ms"] / 1000)
    good = ~wanted["error"]
    assert (joined(blocks, "errors") == wanted["error"]).all()
    assert np.allclose(joined(blocks, "embeddings")[good], wanted["embedding"][good], atol=1e-6)
    assert (joined(blocks, "detections")[good] == wanted["detections"][good]).all()
    assert [value for b in blocks for value in b.segments["country"]] == list(wanted["segment.country"])


@pytest.mark.parametrize("kind", KINDS)
def test_columns_may_be_called_otherwise_and_others_are_not_read(tmp_path, kind):
    content = rows(20)
    content["score"], content["camera"] = content.pop("confidence"), np.full(20, "left")
    content["comment"] = np.full(20, "x")
    path = write(tmp_path / f"rows{kind}", content)
    columns = columns_of(path, {"confidence": "score"}, ["camera"])
    assert columns.unread == ("comment",)
    (block,) = read_rows(path, columns, dimensions=4)
    assert np.allclose(block.columns["confidences"], content["score"])
    assert set(block.segments) == {"camera", "country"}


def test_plurals_are_found(tmp_path):
    content = rows(20)
    path = write(tmp_path / "rows.npz", {"at": content["at"], "confidences": content["confidence"]})
    assert np.allclose(joined(read(path), "confidences"), content["confidence"])


@pytest.mark.parametrize(
    "at",
    [
        ["2025-10-09T09:00:00Z", "2025-10-09 11:30:00+02:00"],
        ["2025-10-09T09:00:00", "2025-10-09T09:30:00"],
        [str(T0), str(T0 + 1800)],
    ],
)
def test_times_are_iso_or_unix_seconds_and_without_a_zone_utc(tmp_path, at):
    path = write(tmp_path / "rows.csv", {"at": at, "confidence": [0.1, 0.2]})
    assert read(path)[0].at.tolist() == [T0, T0 + 1800]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_parquets_timestamps_are_times(tmp_path, unit):
    at = pa.array([np.datetime64(T0, "s")] * 2).cast(pa.timestamp(unit))
    parquet.write_table(pa.table({"at": at, "confidence": [0.1, 0.2]}), tmp_path / "rows.parquet")
    assert read(tmp_path / "rows.parquet")[0].at.tolist() == [T0, T0]


@pytest.mark.parametrize("kind", [".parquet", ".csv"])
def test_a_row_with_an_error_needs_no_other_values(tmp_path, kind):
    content = {"at": [T0, T0 + 1], "confidence": [0.5, None], "error": [None, "timed out"]}
    content["embedding"] = [[1.0, 2.0, 3.0, 4.0], None]
    path = tmp_path / f"rows{kind}"
    if kind == ".parquet":
        parquet.write_table(pa.table(content), path)
    else:
        path.write_text(f'at,confidence,error,embedding\n{T0},.5,,"[1,2,3,4]"\n{T0 + 1},,timed out,\n')
    (block,) = read(path)
    assert block.columns["errors"].tolist() == [False, True]
    assert block.columns["embeddings"][0].tolist() == [1, 2, 3, 4]


def spoiled(column, value, row=7):
    content = rows(20)
    content["error"] = np.zeros(20, bool)
    content[column] = content[column].astype(float)
    content[column][row] = value
    return content


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("column", "value", "code"),
    [
        ("at", np.nan, "not_finite"),
        ("at", -5, "out_of_range"),
        ("at", T0 + 360_000, "in_future"),
        ("confidence", np.nan, "not_finite"),
        ("confidence", 1.5, "out_of_range"),
        ("detections", -1, "out_of_range"),
        ("latency_ms", np.inf, "not_finite"),
        ("embedding", np.nan, "not_finite"),
        ("embedding", np.inf, "not_finite"),
    ],
)
@pytest.mark.parametrize("block", [3, 100])
def test_a_wrong_value_is_named_by_row_and_column(tmp_path, kind, column, value, code, block):
    path = write(tmp_path / f"rows{kind}", spoiled(column, value))
    with pytest.raises(FileError) as refused:
        read(path, block, until=T0 + 7 * 3600)
    assert (refused.value.code, refused.value.column, refused.value.row) == (code, column, 8)


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_of_another_length_are_refused(tmp_path, kind):
    path = write(tmp_path / f"rows{kind}", rows(20))
    with pytest.raises(FileError, match="4 values, the reference wants 512") as refused:
        read(path, dimensions=512)
    assert refused.value.code == "wrong_dimension"


def test_embeddings_that_nobody_can_count_are_not_even_read(tmp_path):
    path = write(tmp_path / "rows.npz", spoiled("embedding", np.nan))
    assert read(path, dimensions=None)[0].columns["embeddings"] is None


@pytest.mark.parametrize(
    ("content", "named", "segments", "code", "column"),
    [
        ({"confidence": [0.5]}, None, (), "missing", "at"),
        ({"at": [T0]}, None, (), "missing", ""),
        ({"at": [T0], "confidence": [0.5]}, {"confidence": "score"}, (), "missing", "score"),
        ({"at": [T0], "confidence": [0.5]}, None, ("camera",), "missing", "camera"),
        ({"at": [T0], "confidence": [0.5]}, {"mood": "at"}, (), "unknown_field", ""),
    ],
)
def test_columns_that_are_not_there_are_named(tmp_path, content, named, segments, code, column):
    path = write(tmp_path / "rows.csv", content)
    with pytest.raises(FileError) as refused:
        columns_of(path, named, segments)
    assert (refused.value.code, refused.value.column) == (code, column)


@pytest.mark.parametrize("kind", [".parquet", ".npz"])
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path, kind):
    (tmp_path / f"rows{kind}").write_bytes(b"at,confidence\n1,2\n" * 10)
    with pytest.raises(FileError, match="bad_file"):
        columns_of(tmp_path / f"rows{kind}")


def test_a_text_where_a_number_belongs_is_refused(tmp_path):
    path = write(tmp_path / "rows.csv", {"at": [T0, T0], "confidence": [0.5, "high"]})
    with pytest.raises(FileError, match="wrong_type") as refused:
        read(path)
    assert refused.value.column == "confidence"


def test_a_pickle_is_never_opened(tmp_path):
    path = write(tmp_path / "rows.npz", {"at": np.array([T0]), "confidence": np.array([{}], object)})
    with pytest.raises(FileError, match="bad_file"):
        read(path)


def test_arrays_of_different_length_are_refused(tmp_path):
    path = write(tmp_path / "rows.npz", {"at": np.full(3, T0), "confidence": np.ones(2)})
    with pytest.raises(FileError, match="differ in length"):
        read(path)


def test_the_digest_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert files.sha256_of(tmp_path / "a").startswith("ba7816bf")
