"""What are the bytes of a task's image? They stay at the source; a page sees them through here."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane import outbound
from controlplane.problems import Problem
from labeling.models import Task

MAX_BYTES = 20 * 2**20
CONTENT_TYPES = frozenset(  # raster images only: an SVG can carry scripts
    {"image/jpeg", "image/png", "image/webp", "image/gif", "image/avif", "image/bmp"}
)


@dataclass(frozen=True)
class Image:
    """An image as its source sent it."""

    data: bytes
    content_type: str


def fetch(task: Task) -> Image:
    """Get a task's image from its source. Problem 502 `image_unavailable` says why there is none."""
    try:
        answer = outbound.get(task.image, MAX_BYTES)
    except outbound.OutboundError as err:
        raise _unavailable(task, str(err)) from err
    if answer.status != 200:
        raise _unavailable(task, f"its source answered {answer.status}")
    content_type = answer.content_type.partition(";")[0].strip().lower()
    if content_type not in CONTENT_TYPES:
        raise _unavailable(task, f"its source sent {content_type or 'no content type'}, not an image")
    return Image(answer.content, content_type)


def _unavailable(task: Task, why: str) -> Problem:
    return Problem(502, "image_unavailable", f"the image of task {task.pk} cannot be shown: {why}")
