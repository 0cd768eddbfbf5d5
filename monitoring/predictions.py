"""Is this row a prediction? Its fields, strictly typed: nothing is converted, rounded or guessed. PURE."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import numpy as np
from davy import wire
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from controlplane import problems

MAX_VALUES = 16_384  # of an embedding, or of probabilities
NO_NUL = r"^[^\x00]*$"  # PostgreSQL stores no NUL character


def moment(value: Any) -> datetime:
    """A time with a zone, from ISO 8601 or unix seconds; ValueError for anything else."""
    if isinstance(value, str):
        found = datetime.fromisoformat(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        try:
            found = datetime.fromtimestamp(value, UTC)
        except (OverflowError, OSError):
            raise ValueError("no such time") from None
    else:
        raise ValueError("want ISO 8601 with a zone, or unix seconds")
    if found.tzinfo is None:
        raise ValueError("the time has no zone")
    return found


def _segment(value: dict[str, str]) -> dict[str, str]:
    if not all(part and wire.clean(part) for pair in value.items() for part in pair):
        raise ValueError("not a map of printable text to printable text")
    if len(wire.segment_key(value)) > wire.MAX_SEGMENT_KEY:
        raise ValueError(f"longer than {wire.MAX_SEGMENT_KEY} characters as JSON")
    return value


Moment = Annotated[datetime, BeforeValidator(moment)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=NO_NUL)]
Short = Annotated[str, StringConstraints(max_length=32, pattern=NO_NUL)]
Text = Annotated[str, StringConstraints(max_length=255, pattern=NO_NUL)]
Long = Annotated[str, StringConstraints(max_length=65_536, pattern=NO_NUL)]
Share = Annotated[float, Field(ge=0, le=1)]
Shares = (
    Annotated[list[Share], Field(max_length=MAX_VALUES)]
    | Annotated[dict[Text, Share], Field(max_length=MAX_VALUES)]
)
Vector = Annotated[list[float], Field(min_length=1, max_length=MAX_VALUES)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Detection(_Strict):
    """One object found in an image; `box` is left, top, width, height in the image's own unit."""

    label: Text
    confidence: Share
    box: Annotated[list[float], Field(min_length=4, max_length=4)] | None = None


class Row(_Strict):
    """One row of a batch. `at` is ISO 8601 with a zone, or unix seconds.

    `embedding` is a list of numbers, or base64 (in msgpack: bytes) of little-endian float16 or float32. A row
    with a `sampler` is a sample for labeling and is not counted; `inclusion_probability` is that of its draw.
    """

    id: Name
    model: Name
    version: Name
    at: Moment
    purpose: Literal["live", "pinned", "shadow"] = "live"
    confidence: Share | None = None
    label: Text = ""
    probabilities: Shares | None = None
    detections: Annotated[list[Detection], Field(max_length=1000)] | None = None
    embedding: Vector | Long | bytes | None = None
    segment: Annotated[dict[str, str], AfterValidator(_segment)] = Field(default_factory=dict)
    latency_ms: Annotated[float, Field(ge=0)] | None = None
    error: Long = ""
    image: Long = ""
    key: Text = ""
    sampler: Short = ""
    inclusion_probability: Annotated[float, Field(gt=0, le=1)] | None = None
    stratum: Short = ""


def float32_bytes(embedding: list[float] | str | bytes | None, dimensions: int | None) -> bytes:
    """An embedding as little-endian float32, b"" for None; a problem of /embedding when it is not a finite vector.

    `dimensions` is that of the version's reference, and tells float16 from float32; without a reference
    (None) bytes are read as float32 and any length is right.
    """
    if embedding is None:
        return b""
    if isinstance(embedding, list):
        vector = np.asarray(embedding, np.float64)
    else:
        vector = _from_bytes(embedding, dimensions)
    if dimensions is not None and len(vector) != dimensions:
        detail = f"{len(vector)} values, the version's reference has {dimensions}"
        raise problems.field("/embedding", "wrong_dimension", detail)
    with np.errstate(over="ignore"):
        single = vector.astype("<f4")
    if not np.isfinite(single).all():
        raise problems.field("/embedding", "not_finite", "a value is not a finite float32")
    return single.tobytes()


def _from_bytes(embedding: str | bytes, dimensions: int | None) -> np.ndarray[Any, np.dtype[Any]]:
    try:
        data = base64.b64decode(embedding, validate=True) if isinstance(embedding, str) else embedding
    except binascii.Error as err:
        raise problems.field("/embedding", "invalid", f"not base64: {err}") from None
    kind = "<f2" if dimensions is not None and len(data) == 2 * dimensions else "<f4"
    if not data or len(data) % np.dtype(kind).itemsize or len(data) > 4 * MAX_VALUES:
        raise problems.field("/embedding", "invalid", f"{len(data)} bytes are no vector of float32")
    return np.frombuffer(data, kind)
