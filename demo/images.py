"""Where does an annotator see a live image? `GET /live/<index>.png?look=<look>` answers it as PNG.

`python -m demo.images --port P` serves it, on 127.0.0.1 unless --host says otherwise.
"""

from __future__ import annotations

import argparse
import io
import re
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType
from urllib.parse import parse_qs, urlsplit

from PIL import Image

from demo import looks

SIZE_PIXELS = 280  # enlarged tenfold: 28 pixels are too few to label on a screen
PATH = re.compile(r"/live/(\d{1,5})\.png")


def png(index: int, look: str) -> bytes:
    """Return the PNG of a live image; LookupError where there is no such index or look."""
    image = Image.fromarray(looks.live_images(look)[index])
    out = io.BytesIO()
    image.resize((SIZE_PIXELS, SIZE_PIXELS), Image.Resampling.BICUBIC).save(out, "PNG")
    return out.getvalue()


class Handler(BaseHTTPRequestHandler):
    """Answers one path; everything else is 404."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer 200 with the image, or 404."""
        url = urlsplit(self.path)
        match = PATH.fullmatch(url.path)
        look = parse_qs(url.query).get("look", ["plain"])[0]
        try:
            body = png(int(match[1]), look) if match else b""
        except LookupError:
            body = b""
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(body)))
        if body:
            self.send_header("Content-Type", "image/png")
            self.send_header("Cache-Control", "public, max-age=86400")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: each image shown is no news."""


def _stop(signum: int, frame: FrameType | None) -> None:
    sys.exit(0)


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    with ThreadingHTTPServer((options.host, options.port), Handler) as server:
        server.daemon_threads = True
        print(f"images: http://{options.host}:{options.port}/live/0.png", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
