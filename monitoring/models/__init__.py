"""The facts of monitoring, re-exported: import them from here."""

from monitoring.models.charts import ChartExclusion, ControlChart
from monitoring.models.detection import Calibration, DetectorState, Episode, Family, Finding
from monitoring.models.outcomes import Outcome, ShadowDraw, ShadowPair
from monitoring.models.references import Reference
from monitoring.models.series import Rollup, Segment, Unrolled, VersionTotal
from monitoring.models.telemetry import Prediction, Purpose, Report, Reporting, Window

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
    "Reporting",
    "Rollup",
    "Segment",
    "ShadowDraw",
    "ShadowPair",
    "Unrolled",
    "VersionTotal",
    "Window",
]
