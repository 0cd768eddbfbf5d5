"""JSON for monitoring: references, telemetry in, drift, charts and accuracy out."""

from ninja import Router

from monitoring.api import accuracy, calibrations, charts, drift, references, telemetry

router = Router()
for module in (references, telemetry, drift, calibrations, charts, accuracy):
    router.add_router("", module.router)
