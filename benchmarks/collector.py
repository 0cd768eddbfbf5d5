"""What does observe() cost a model server, per batch of 32 images?

    .venv/bin/python benchmarks/collector.py

Everything given (confidence, embedding d = 512, k = 32, B = 256, latency, label, image, key, segment), in one process,
BLAS on one thread. "Beyond the projection" is the time less that of Reference.project on the same batch.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "sdk"))

import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from davy import wire
from davy.collector import Collector
from davy.reference import Reference
from davy.sampling import Sampling

ROWS, D, K, B = 32, 512, 32, 256
REPEATS = 3000


def make_reference(rng: np.random.Generator) -> Reference:
    """A reference with edges at the quantiles of standard normal rows."""
    components = np.linalg.qr(rng.normal(size=(D, K)))[0].T
    blank = np.zeros((K + 1, B), int)
    bare = Reference.build(np.zeros(D), components, blank[:, 1:], blank, np.zeros(100, int), 0)
    values = bare.project(rng.normal(size=(20_000, D)))
    edges = np.quantile(values, np.arange(1, B) / B, axis=1).T
    return Reference.build(np.zeros(D), components, np.sort(edges), blank, np.zeros(100, int), 20_000)


def microseconds(call: Callable[[int], object]) -> tuple[float, float]:
    """Median and 99 % quantile of the time of one call."""
    times = np.empty(REPEATS)
    for i in range(REPEATS):
        began = time.perf_counter()
        call(i)
        times[i] = time.perf_counter() - began
    return float(np.median(times) * 1e6), float(np.quantile(times, 0.99) * 1e6)


def main() -> None:
    rng = np.random.default_rng(0)
    reference = make_reference(rng)
    embeddings = rng.normal(size=(64, ROWS, D)).astype(np.float32)
    confidences = rng.beta(6, 1.5, size=(64, ROWS)).astype(np.float32)
    latency = rng.lognormal(-4, 0.3, size=(64, ROWS))
    ids = [[f"{i:08x}-6f0b-4c58-9d93-{j:012x}" for j in range(ROWS)] for i in range(REPEATS)]
    labels = [f"class-{j}" for j in range(ROWS)]
    images = [f"s3://images/{j}.jpg" for j in range(ROWS)]
    keys = [f"user-{j}" for j in range(ROWS)]
    devices = ["ios", "android", "web", "kiosk"] * (ROWS // 4)
    clock = [1_700_000_000.0]

    def collector(ref: Reference | None, sampling: Sampling | None = None) -> Collector:
        return Collector(
            "http://127.0.0.1:9",
            "t",
            "m",
            "v",
            ref,
            background=False,
            clock=lambda: clock[0],
            sampling=sampling,
        )

    def observe(target: Collector, i: int, **more: object) -> None:
        target.observe(
            ids[i],
            confidences=confidences[i % 64],
            latency_seconds=latency[i % 64],
            labels=labels,
            images=images,
            keys=keys,
            **more,  # type: ignore[arg-type]
        )

    project, _ = microseconds(lambda i: reference.project(embeddings[i % 64]))
    print(f"{'projection alone (32 × 512 → 32)':58}{project:8.0f} µs")
    plain, full, mixed = collector(None), collector(reference), collector(reference)
    cases: list[tuple[str, float, Callable[[int], None]]] = [
        ("no embeddings", 0, lambda i: observe(plain, i, segments={"device": "ios"})),
        ("everything, one segment", project,
         lambda i: observe(full, i, segments={"device": "ios"}, embeddings=embeddings[i % 64])),
        ("everything, 4 segments mixed in each batch", project,
         lambda i: observe(mixed, i, segments={"device": devices}, embeddings=embeddings[i % 64])),
    ]  # fmt: skip
    for name, less, call in cases:
        median, p99 = microseconds(call)
        print(f"{name:58}{median:8.0f} µs  p99 {p99:5.0f} µs  beyond the projection {median - less:5.0f} µs")
    sizes(reference, embeddings, confidences, latency)
    for target in (plain, full, mixed):
        target._stop.set()


def sizes(reference: Reference, embeddings: np.ndarray, confidences: np.ndarray, latency: np.ndarray) -> None:
    """Bytes on the wire of an interval of 10 s at 500 images/s, and its memory, with 1 and with 90 segments."""
    from davy.batch import Batch, segment_of
    from davy.tally import Tally, count_batch

    for segments in (1, 90):
        tracemalloc.start()
        tally = Tally(0.0, 10.0, reference)
        for i in range(5000 // ROWS):
            batch = Batch.of(
                [""] * ROWS,
                {
                    "confidences": confidences[i % 64],
                    "latency_seconds": latency[i % 64],
                    "embeddings": embeddings[i % 64],
                },
            )
            counts, _ = count_batch(batch, batch)
            values = reference.project(embeddings[i % 64])
            tally.add("live", segment_of((("device", f"d{i % segments}"),)), counts, values)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        report = wire.Report("0" * 36, 0, 0.0, "m", "v", reference.digest, 0.0, 10.0, tally.report_windows())
        began = time.perf_counter()
        data = wire.encode_report(report)
        took = time.perf_counter() - began
        print(
            f"{segments:3} segments: {len(data) / 1024:7.1f} KiB a report, {len(data) * 8640 / 2**20:7.0f} MiB a day,"
            f" {held / 2**20:5.1f} MiB held, encoded in {took * 1e3:.1f} ms"
        )


if __name__ == "__main__":
    main()
