"""What do the rows of a file add up to, hour by hour? The reports that a collector would have sent.

`read_through` first, then `hourly_reports`: nothing of a file is sent before all of it was looked at, since a file that
is mended is another file, and what was sent of the first would count twice.
"""

from __future__ import annotations

import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from davy.batch import Batch, split
from davy.counting import Counts
from davy.files import Block
from davy.reference import Reference
from davy.tally import Tally, count_batch, good_rows
from davy.wire import Report

HOUR_SECONDS = 3600
OPEN_WINDOWS = 4000  # counted at a time: 270 MB at k = 32, B = 256
PARTS = 2**20  # reports that one hour may have, where its rows lie far apart in the file
NAMESPACE = uuid.UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")  # RFC 4122: names that are object identifiers

Done = Callable[[int], None]
CountEmbeddings = Callable[[NDArray[np.floating]], Counts]


def last_full_hour(now: float) -> float:
    """The end of the last hour that is over, in unix seconds: a history is of whole hours."""
    return now // HOUR_SECONDS * HOUR_SECONDS


def read_through(blocks: Iterable[Block], done: Done) -> int:
    """How many rows the blocks have, after all of them were looked at; `done` is told of each block's."""
    rows = 0
    for block in blocks:
        rows += len(block.at)
        done(len(block.at))
    return rows


def told(blocks: Iterable[Block], done: Done) -> Iterator[Block]:
    """The same blocks; `done` is told of the rows of each when the next one is asked for."""
    for block in blocks:
        yield block
        done(len(block.at))


def hourly_reports(
    blocks: Iterable[Block],
    reference: Reference | None,
    model: str,
    version: str,
    source_sha256: str,
    *,
    count: CountEmbeddings | None = None,
    open_windows: int = OPEN_WINDOWS,
) -> Iterator[Report]:
    """Reports of whole hours, UTC. The same file always makes the same ones, so that sending them again counts nothing.

    reference      that embeddings are counted with; None: they are not
    source_sha256  of the file, hexadecimal; with model and version it names the reporter
    count          counts embeddings (n, d) as (k+1, B); by default the reference's own, in numpy
    Memory does not grow with the file: of more than `open_windows` hours × segments the one touched longest ago is
    reported, and again as another part when more of its rows come.
    """
    reporter = str(uuid.uuid5(NAMESPACE, f"{source_sha256}/{model}/{version}"))
    count = count or (reference.count if reference is not None else None)
    parts: Counter[int] = Counter()

    def closed(hour: int, tally: Tally) -> Report:
        counted = reference is not None and any(w.embedding is not None for w in tally.windows.values())
        sequence = hour * PARTS + parts[hour]
        parts[hour] += 1
        return Report(
            reporter=reporter,
            sequence=sequence,
            sent_at=tally.end,
            model=model,
            version=version,
            reference_digest=reference.digest if counted and reference is not None else "",
            start=tally.start,
            end=tally.end,
            windows=list(tally.windows.values()),
        )

    tallies: OrderedDict[int, Tally] = OrderedDict()
    for block in blocks:
        for hour, rows in _by_hour(block):
            if hour not in tallies:
                start = float(hour * HOUR_SECONDS)
                tallies[hour] = Tally(start, start + HOUR_SECONDS, reference)
            tallies.move_to_end(hour)
            _add(tallies[hour], rows, count)
        while len(tallies) > 1 and sum(len(tally.windows) for tally in tallies.values()) > open_windows:
            yield closed(*tallies.popitem(last=False))
    for hour, tally in tallies.items():
        yield closed(hour, tally)


def _by_hour(block: Block) -> Iterator[tuple[int, Block]]:
    hours = (block.at // HOUR_SECONDS).astype(np.int64)
    for hour in np.unique(hours):
        yield int(hour), block.take(np.flatnonzero(hours == hour))


def _add(tally: Tally, block: Block, count: CountEmbeddings | None) -> None:
    columns = {name: values for name, values in block.columns.items() if values is not None}
    batch = Batch([""] * len(block.at), columns)
    for purpose, segment, rows in split(batch, "live", block.segments):
        good = good_rows(rows)
        counts, _ = count_batch(rows, good)
        if count is not None and "embeddings" in good.columns:
            counts.embedding = count(good.columns["embeddings"])
        tally.add(purpose, segment, counts)
