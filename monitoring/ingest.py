"""Is what came in valid, and is it here for the first time? Validate and store once; numbers come later."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypedDict

from davy import wire
from django.db import connection
from pydantic import ValidationError

from controlplane import problems, registry
from controlplane.models import Model, ModelVersion
from monitoring import references, shadow, windows
from monitoring.models import Prediction, Report
from monitoring.predictions import Row, float32_bytes

MAX_ROWS = 10_000
LATE_SECONDS = 300.0  # a reporter whose clock is further off is kept out of rollout evidence
FUTURE_SECONDS = 300.0  # a prediction may not be dated further ahead
REPORT_MAX_AGE = timedelta(hours=24)  # older ones are refused: their sequence numbers may be forgotten
PREDICTION_MAX_AGE = timedelta(days=7)  # likewise older ids
CODES = {"finite_number": "not_finite"}  # what pydantic says, where the contract has a word of its own
STATE_THEIR_PROBABILITY = frozenset({"measure", "shadow"})  # samplers


class Rejected(TypedDict):
    """Why one row of a batch was not stored; `pointer` is a JSON pointer into the row."""

    index: int
    pointer: str
    code: str
    detail: str


@dataclass
class Answer:
    """What became of a request: stored now, known already, refused."""

    accepted: int = 0
    duplicate: int = 0
    rejected: list[Rejected] = field(default_factory=list)


@dataclass
class ReportAnswer(Answer):
    """What a collector hears, too: the share of requests to sample for comparison (0 while none are mirrored), and the
    digest of the reference in force when it counts with another one."""

    shadow_share: float = 0.0
    reference_digest: str = ""


def store_report(body: bytes, now: datetime) -> ReportAnswer:
    """Store a collector's report unless its (reporter, sequence) is known. Problems name the field."""
    try:
        report = wire.decode_report(body)
    except wire.WireError as err:
        raise problems.field(err.pointer, "invalid", err.detail) from None
    version = registry.get_version(report.model, report.version)
    _check_times(report, now)
    newer = check_reference(report, version)
    late = abs(now.timestamp() - report.sent_at) > LATE_SECONDS
    _, created = Report.objects.get_or_create(
        reporter=report.reporter,
        sequence=report.sequence,
        defaults={"received_at": now, "body": body, "late": late},
    )
    return ReportAnswer(int(created), int(not created), [], shadow.share(version, now), newer)


def _check_times(report: wire.Report, now: datetime) -> None:
    if report.start > report.sent_at:
        raise problems.field("/from", "in_future", "the interval begins after the report was sent")
    _, end = windows.corrected_interval(report, now)
    if now - end > REPORT_MAX_AGE:
        raise problems.field("/to", "too_old", f"the interval ended more than {REPORT_MAX_AGE} ago")


def check_reference(report: wire.Report, version: ModelVersion) -> str:
    """Counts in bins that nobody knows cannot be added up, so they are refused; any of the version's references do.

    Returns the digest of the one in force where the report was counted with another one, else "".
    """
    if not report.reference_digest:
        return ""
    known = references.shapes_of(version)
    shape = known.get(report.reference_digest)
    if shape is None:
        raise problems.field(
            "/reference_digest", "unknown_reference", f"{version} has no reference {report.reference_digest}"
        )
    for index, window in enumerate(report.windows):
        if window.embedding is not None and window.embedding.shape != (shape.rows, shape.bins):
            raise problems.field(
                f"/windows/{index}/embedding", "wrong_shape", f"want {shape.rows} rows of {shape.bins} bins"
            )
    return "" if shape.active else next((digest for digest, other in known.items() if other.active), "")


def store_predictions(rows: Sequence[Any], now: datetime) -> Answer:
    """Store the good rows of a batch, once per (version, id, sampler), and list the bad ones.

    A batch without one good row is refused as a whole: 422, with pointers like /0/confidence.
    """
    answer = Answer()
    parsed = list(_parsed(rows, answer))
    version_ids = windows.version_ids({(row.model, row.version) for _, row in parsed})
    models = set(
        Model.objects.filter(name__in={row.model for _, row in parsed}).values_list("name", flat=True)
    )
    dimensions = references.dimensions(version_ids.values())
    good: list[Prediction] = []
    for index, row in parsed:
        version_id = version_ids.get((row.model, row.version))
        try:
            if version_id is None:
                raise _unknown(row, models)
            good.append(_prediction(row, version_id, dimensions.get(version_id), now))
        except problems.Problem as problem:
            answer.rejected.append({"index": index, **problem.errors[0]})
    answer.rejected.sort(key=lambda rejected: rejected["index"])
    if answer.rejected and not good:
        raise _all_refused(answer.rejected)
    answer.accepted = _insert(good)
    answer.duplicate = len(good) - answer.accepted
    return answer


def _parsed(rows: Sequence[Any], answer: Answer) -> Iterable[tuple[int, Row]]:
    for index, row in enumerate(rows):
        try:
            yield index, Row.model_validate(row)
        except ValidationError as err:
            first = err.errors(include_url=False, include_context=False, include_input=False)[0]
            pointer = f"/{first['loc'][0]}" if first["loc"] else ""
            code = CODES.get(first["type"], first["type"])
            answer.rejected.append({"index": index, "pointer": pointer, "code": code, "detail": first["msg"]})


def _unknown(row: Row, models: set[str]) -> problems.Problem:
    if row.model in models:
        return problems.field("/version", "unknown_version", f"{row.model!r} has no version {row.version!r}")
    return problems.field("/model", "unknown_model", f"no model {row.model!r}")


def _prediction(row: Row, version_id: int, dimensions: int | None, now: datetime) -> Prediction:
    if row.at - now > timedelta(seconds=FUTURE_SECONDS):
        raise problems.field("/at", "in_future", f"later than {FUTURE_SECONDS:.0f} s from now")
    if now - row.at > PREDICTION_MAX_AGE:
        raise problems.field("/at", "too_old", f"more than {PREDICTION_MAX_AGE} ago")
    if row.sampler in STATE_THEIR_PROBABILITY and row.inclusion_probability is None:
        raise problems.field(
            "/inclusion_probability", "missing", f"a {row.sampler} sample states its probability"
        )
    embedding = float32_bytes(row.embedding, dimensions)
    fields = row.model_dump(exclude={"id", "model", "version", "embedding"})
    return Prediction(
        version_id=version_id, request_id=row.id, received_at=now, embedding=embedding, **fields
    )


def _all_refused(rejected: list[Rejected]) -> problems.Problem:
    errors: tuple[problems.FieldProblem, ...] = tuple(
        {"pointer": f"/{row['index']}{row['pointer']}", "code": row["code"], "detail": row["detail"]}
        for row in rejected[:100]
    )
    return problems.Problem(
        422,
        errors[0]["code"],
        f"no row of {len(rejected)} is valid; the first: {errors[0]['detail']}",
        errors,
    )


COLUMNS = {
    "version_id": "bigint",
    "request_id": "text",
    "at": "timestamptz",
    "received_at": "timestamptz",
    "purpose": "text",
    "confidence": "float8",
    "label": "text",
    "probabilities": "jsonb",
    "detections": "jsonb",
    "embedding": "bytea",
    "segment": "jsonb",
    "latency_ms": "float8",
    "error": "text",
    "image": "text",
    "key": "text",
    "sampler": "text",
    "inclusion_probability": "float8",
    "stratum": "text",
}


def _insert(rows: list[Prediction]) -> int:
    """Insert in one statement what is not there yet; returns how many were new.

    Raw SQL because the ORM does not tell how many rows a conflict skipped. The order by key keeps two batches
    that share rows from waiting for each other in a circle.
    """
    if not rows:
        return 0
    rows = sorted(rows, key=lambda row: (row.version_id, row.request_id, row.sampler))
    table = connection.ops.quote_name(Prediction._meta.db_table)
    arrays = ", ".join(f"%s::{'text' if kind == 'jsonb' else kind}[]" for kind in COLUMNS.values())
    values = ", ".join(f"{name}::{kind}" for name, kind in COLUMNS.items())
    statement = (
        f"INSERT INTO {table} ({', '.join(COLUMNS)})"  # noqa: S608  # names are constants
        f" SELECT {values} FROM unnest({arrays}) AS new ({', '.join(COLUMNS)}) ON CONFLICT DO NOTHING"
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, [_column(rows, name, kind) for name, kind in COLUMNS.items()])
        inserted: int = cursor.rowcount
    return inserted


def _column(rows: list[Prediction], name: str, kind: str) -> list[Any]:
    values = [getattr(row, name) for row in rows]
    if kind != "jsonb":
        return values
    return [None if value is None else json.dumps(value) for value in values]
