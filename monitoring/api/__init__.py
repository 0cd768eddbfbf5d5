"""JSON for monitoring: references, telemetry in, drift, charts and accuracy out."""

from ninja import Router

from monitoring.api import accuracy, charts, drift, references, telemetry

router = Router()
for module in (references, telemetry, drift, charts, accuracy):
    router.add_router("", module.router)
