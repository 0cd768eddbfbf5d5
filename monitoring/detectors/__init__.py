"""Which detectors are there? Add one: a file in this folder, and a line in this table."""

from __future__ import annotations

from monitoring.detectors.base import Detector
from monitoring.detectors.confidence_chart import ConfidenceChart
from monitoring.detectors.embedding_drift import EmbeddingDrift

DETECTORS: dict[str, Detector] = {
    EmbeddingDrift.name: EmbeddingDrift(),
    ConfidenceChart.name: ConfidenceChart(),
}
