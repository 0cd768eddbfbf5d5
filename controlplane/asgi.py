"""The web application, as an ASGI callable."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
_django = get_asgi_application()

from controlplane.limits import LimitBody  # noqa: E402

application = LimitBody(_django)
