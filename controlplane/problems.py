"""What a rule raises when input is wrong: one error type that becomes an RFC 9457 problem at the edge. PURE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict


class FieldProblem(TypedDict):
    """One wrong field: `pointer` is a JSON pointer into the request ("" for the whole), `code` is stable."""

    pointer: str
    code: str
    detail: str


@dataclass
class Problem(Exception):
    """A refusal: `status` as in HTTP, `code` stable for programs, `detail` for people, `errors` by field."""

    status: int
    code: str
    detail: str
    errors: tuple[FieldProblem, ...] = ()

    def __str__(self) -> str:
        return self.detail


def field(pointer: str, code: str, detail: str, status: int = 422) -> Problem:
    """A problem with one field, e.g. `field("/model", "unknown_model", "no model 'shoes'")`."""
    return Problem(status, code, detail, ({"pointer": pointer, "code": code, "detail": detail},))
