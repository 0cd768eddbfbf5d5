"""Which rows are in a request's body: JSON, NDJSON or msgpack, plain or gzip?"""

from __future__ import annotations

import json
import zlib
from typing import Any

import msgpack

from controlplane import problems

JSON_TYPES = ("application/json",)
LINES_TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonl")
MSGPACK_TYPES = ("application/msgpack", "application/x-msgpack", "application/vnd.msgpack")


def inflate(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """The body without its Content-Encoding (none or gzip); 415 for another one, 413 beyond `max_bytes`."""
    if encoding in {"", "identity"}:
        return body
    if encoding != "gzip":
        raise problems.Problem(
            415, "unsupported_encoding", f"Content-Encoding {encoding!r}; gzip is understood"
        )
    stream = zlib.decompressobj(wbits=31)
    try:
        data = stream.decompress(body, max_bytes + 1)
    except zlib.error as err:
        raise problems.field("", "not_gzip", f"the body is not gzip: {err}") from None
    if len(data) > max_bytes:
        raise problems.Problem(413, "too_large", f"the body unpacks to more than {max_bytes} bytes")
    if not stream.eof:
        raise problems.field("", "not_gzip", "the gzip body ends too early")
    return data


def rows(body: bytes, content_type: str, max_rows: int) -> list[Any]:
    """The rows of an array, of {"predictions": [...]}, or of one JSON document a line; at most `max_rows`."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind in LINES_TYPES:
        found = [
            _json(line, f"line {number}: ")
            for number, line in enumerate(body.splitlines(), 1)
            if line.strip()
        ]
    elif kind in MSGPACK_TYPES:
        found = _list(_msgpack(body))
    elif kind in JSON_TYPES or not kind:
        found = _list(_json(body, ""))
    else:
        known = ", ".join([*JSON_TYPES, LINES_TYPES[0], MSGPACK_TYPES[0]])
        raise problems.Problem(415, "unsupported_type", f"Content-Type {kind!r}; understood are {known}")
    if len(found) > max_rows:
        raise problems.field(
            "", "too_many_rows", f"{len(found)} rows, at most {max_rows} are accepted", status=413
        )
    return found


def _json(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as err:
        raise problems.field("", "not_json", f"{where}{err}", status=400) from None


def _msgpack(body: bytes) -> Any:
    try:
        return msgpack.unpackb(body)
    except (ValueError, msgpack.UnpackException) as err:
        raise problems.field(
            "", "not_msgpack", f"not msgpack: {err or type(err).__name__}", status=400
        ) from None


def _list(document: Any) -> list[Any]:
    if isinstance(document, dict) and set(document) == {"predictions"}:
        document = document["predictions"]
    if not isinstance(document, list):
        raise problems.field("", "not_a_list", 'want an array of predictions, or {"predictions": [...]}')
    return document
