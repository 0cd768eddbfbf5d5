"""The facts of monitoring, re-exported: import them from here."""

from monitoring.models.charts import ChartExclusion, ControlChart
from monitoring.models.detection import Calibration, DetectorState, Episode, Family, Finding
from monitoring.models.outcomes import Outcome, ShadowDraw, ShadowPair
from monitoring.models.series import Rollup, Segment, VersionTotal
from monitoring.models.telemetry import Prediction, Purpose, Reference, Report, Window

__all__ = [
    "Calibration",
    "ChartExclusion",
    "ControlChart",
    "DetectorState",
    "Episode",
    "Family",
    "Finding",
    "Outcome",
    "Prediction",
    "Purpose",
    "Reference",
    "Report",
    "Rollup",
    "Segment",
    "ShadowDraw",
    "ShadowPair",
    "VersionTotal",
    "Window",
]
