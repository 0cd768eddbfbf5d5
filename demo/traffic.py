"""What do users send? Live images as V2 requests through the gateway, as a control file asks.

`python -m demo.traffic` runs until SIGTERM or SIGINT; `make up` gives the URLs and the folder in the environment.
The control file is read again whenever it changes:
    {"models": {"products": {"rate": 300, "look": "plain"}}}    rate: requests a second; looks: demo/looks.py
The counts file is replaced once a second. Arrivals are Poisson and do not wait for answers (open loop).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import secrets
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop

from demo import looks
from demo.gateway_client import Answer, Pool

USERS = 5_000
SIDE_CAMERA_SHARE = 0.3
MAX_CONNECTIONS = 256
TIMEOUT_SECONDS = 10.0
LOOK_AGAIN_SECONDS = 0.5
UNROUTED_PAUSE_SECONDS = 1.0
LONGEST_BACKLOG_SECONDS = 1.0
SHORTEST_PAUSE_SECONDS = 0.001  # uvloop counts in milliseconds: it would spin through a shorter one
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

BODY_HEADER = (
    b'{"id":"%b","inputs":[{"name":"image","shape":[1,28,28],"datatype":"UINT8",'
    b'"parameters":{"binary_data_size":784}}],"outputs":['
    b'{"name":"label","parameters":{"binary_data":true}},'
    b'{"name":"probabilities","parameters":{"binary_data":true}}]}'
)
HEAD = (
    b"POST /v2/models/%b/infer HTTP/1.1\r\nhost: %b\r\ncontent-type: application/octet-stream\r\n"
    b"x-davy-key: user-%d\r\nx-davy-segment: camera=%b\r\nx-davy-image: %b/live/%d.png?look=%b\r\n"
    b"inference-header-content-length: %d\r\ncontent-length: %d\r\n\r\n"
)


@dataclass(frozen=True)
class Wish:
    """What the control file asks for one model."""

    rate: float = 0.0
    look: str = "plain"


def parse_control(text: str) -> dict[str, Wish]:
    """Return the wish per model; ValueError says what is wrong with the file."""
    document = json.loads(text)
    wishes = {}
    for name, wish in document["models"].items():
        rate, look = float(wish.get("rate", 0)), wish.get("look", "plain")
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot be a model's name")
        if not 0 <= rate <= 100_000:
            raise ValueError(f"{name}: rate {rate} is not within 0 … 100,000")
        if look not in looks.LOOKS:
            raise ValueError(f"{name}: look {look!r} is none of {', '.join(looks.LOOKS)}")
        wishes[name] = Wish(rate, look)
    return wishes


@cache
def pixels(look: str) -> list[bytes]:
    """Return the 784 bytes of every live image in a look."""
    return [image.tobytes() for image in looks.live_images(look)]


def camera(user: int) -> bytes:
    """Return the camera that a user (0 … USERS - 1) always photographs with."""
    return b"side" if user < USERS * SIDE_CAMERA_SHARE else b"front"


def build_request(
    model: str, host: str, images_url: str, look: str, number: str, index: int, user: int
) -> bytes:
    """Return the HTTP request that asks a model for one live image; its id is <model>-<number>-<index>."""
    header = BODY_HEADER % f"{model}-{number}-{index}".encode()
    image = pixels(look)[index]
    head = HEAD % (
        model.encode(),
        host.encode(),
        user,
        camera(user),
        images_url.encode(),
        index,
        look.encode(),
        len(header),
        len(header) + len(image),
    )
    return head + header + image


class Stream:
    """The requests of one model."""

    def __init__(self, model: str, pool: Pool, host: str, images_url: str, run: str) -> None:
        self._model, self._pool, self._host = model, pool, host
        self._images_url, self._run = images_url, run
        self._loop = asyncio.get_running_loop()
        self._random = random.Random()
        self._order = self._indices()
        self._timer: asyncio.TimerHandle | None = None
        self._next_at = 0.0
        self.wish = Wish()
        self.sent = self.ok = self.failed = self.unrouted = self.skipped = self.in_flight = 0
        self._outcomes: Counter[str] = Counter()
        self._milliseconds: list[float] = []

    def _indices(self) -> Iterator[int]:
        order = list(range(len(looks.live_labels())))
        while True:
            self._random.shuffle(order)
            yield from order

    def ask(self, wish: Wish) -> None:
        """Send at this rate and look from now on."""
        if wish == self.wish:
            return
        self.stop()
        self.wish = wish
        if wish.rate > 0:
            self._next_at = self._loop.time()
            self._send_due()

    def stop(self) -> None:
        """Send nothing more."""
        self.wish = Wish(0.0, self.wish.look)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _send_due(self) -> None:
        now = self._loop.time()
        self._next_at = max(self._next_at, now - LONGEST_BACKLOG_SECONDS)
        while self._next_at <= now:
            self._send()
            self._next_at += self._random.expovariate(self.wish.rate)
        pause_seconds = max(self._next_at - now, SHORTEST_PAUSE_SECONDS)
        self._timer = self._loop.call_later(pause_seconds, self._send_due)

    def _send(self) -> None:
        user = self._random.randrange(USERS)
        number = f"{self._run}-{self.sent}"
        request = build_request(
            self._model, self._host, self._images_url, self.wish.look, number, next(self._order), user
        )
        if not self._pool.send(request, self._answered):
            self.skipped += 1
            return
        self.sent += 1
        self.in_flight += 1

    def _answered(self, answer: Answer) -> None:
        self.in_flight -= 1
        self._outcomes[answer.outcome] += 1
        if answer.outcome == "200":
            self.ok += 1
            self._milliseconds.append(1000 * answer.seconds)
        elif answer.outcome == "404" and answer.empty:  # the gateway's own; a model server's 404 has a body
            self.unrouted += 1
            self._next_at = self._loop.time() + UNROUTED_PAUSE_SECONDS
        else:
            self.failed += 1

    def counts(self) -> dict[str, Any]:
        """Return the totals since the start, and the latencies of the good answers since the last call."""
        recent, self._milliseconds = sorted(self._milliseconds), []
        return {
            "rate": self.wish.rate,
            "look": self.wish.look,
            "sent": self.sent,
            "ok": self.ok,
            "failed": self.failed,
            "unrouted": self.unrouted,
            "skipped": self.skipped,
            "in_flight": self.in_flight,
            "outcomes": dict(self._outcomes),
            "answered_last_second": len(recent),
            "p50_ms": quantile(recent, 0.50),
            "p99_ms": quantile(recent, 0.99),
        }


def quantile(ordered: list[float], share: float) -> float | None:
    """Return the smallest value that at least `share` of the ordered ones do not exceed; None of none."""
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3) if ordered else None


class Traffic:
    """All streams, one control file, one counts file."""

    def __init__(self, gateway: str, images_url: str, control: Path, counts: Path) -> None:
        address = urlsplit(gateway)
        self._host, self._port = address.hostname or "", address.port or 80
        self._images_url, self._control, self._counts = images_url.rstrip("/"), control, counts
        self._pool = Pool(self._host, self._port, MAX_CONNECTIONS, TIMEOUT_SECONDS)
        self._run = secrets.token_hex(3)
        self._streams: dict[str, Stream] = {}
        self._seen: tuple[int, int] | None = None
        self._started_at = time.time()

    def read_control(self) -> None:
        """Follow the control file if it changed; a missing or wrong one changes nothing."""
        try:
            status = self._control.stat()
            if (status.st_mtime_ns, status.st_ino) == self._seen:
                return
            self._seen = (status.st_mtime_ns, status.st_ino)
            wishes = parse_control(self._control.read_text())
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            print(f"traffic: {self._control} is not followed: {error!r}", flush=True)
            return
        for name in wishes.keys() - self._streams.keys():
            host = f"{self._host}:{self._port}"
            self._streams[name] = Stream(name, self._pool, host, self._images_url, self._run)
        for name, stream in self._streams.items():
            stream.ask(wishes.get(name, Wish()))

    def write_counts(self) -> None:
        """Replace the counts file."""
        document = {
            "started_at": self._started_at,
            "at": time.time(),
            "cpu_seconds": round(time.process_time(), 3),
            "models": {name: stream.counts() for name, stream in sorted(self._streams.items())},
        }
        partial = self._counts.with_name(self._counts.name + ".partial")
        partial.write_text(json.dumps(document, indent=1))
        os.replace(partial, self._counts)

    async def wait_for_gateway(self) -> None:
        """Return once the gateway accepts connections."""
        while True:
            try:
                _, writer = await asyncio.open_connection(self._host, self._port)
            except OSError:
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
                continue
            writer.close()
            return

    async def run(self, stop: asyncio.Event) -> None:
        """Send until stop is set; then wait for the answers under way, at most 2 s."""
        for look in looks.LOOKS:  # made beforehand, so that a change of look delays no request
            pixels(look)
        self.write_counts()
        while not stop.is_set():
            for _ in range(2):
                self.read_control()
                await _wait(stop, LOOK_AGAIN_SECONDS)
            self._pool.give_up_late()
            if not stop.is_set():
                self.write_counts()
        for stream in self._streams.values():
            stream.stop()
        for _ in range(20):
            if not any(stream.in_flight for stream in self._streams.values()):
                break
            await asyncio.sleep(0.1)
        self.write_counts()
        self._pool.close()


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass


async def main() -> None:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    var = Path(os.environ.get("DAVY_VAR", "var"))
    parser.add_argument("--gateway", default=os.environ.get("DAVY_GATEWAY_URL", "http://127.0.0.1:8080"))
    parser.add_argument("--images", default=os.environ.get("DAVY_IMAGES_URL", ""), help="for x-davy-image")
    parser.add_argument("--control", type=Path, default=var / "traffic.json")
    parser.add_argument("--counts", type=Path, default=var / "traffic-counts.json")
    options = parser.parse_args()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    traffic = Traffic(options.gateway, options.images, options.control, options.counts)
    waiting = asyncio.create_task(traffic.wait_for_gateway())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    await traffic.run(stop)


if __name__ == "__main__":
    uvloop.run(main())
