"""Does the traffic send what the control file asks, and count what really happened?"""

import asyncio
import json
import time
from collections import Counter

import numpy as np
import pytest

from demo import gateway_client, looks, traffic
from demo.v2_protocol import parse_infer


class StubGateway:
    """An HTTP server whose answers the test chooses; it keeps what it was sent."""

    def __init__(self, answer=b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"):
        self.answer = answer
        self.received = []
        self.connections = 0

    async def start(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self._server.sockets[0].getsockname()[1]

    def stop(self):
        self._server.close()

    async def _serve(self, reader, writer):
        self.connections += 1
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionResetError, asyncio.CancelledError):
                break
            headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:-2])
            body = await reader.readexactly(int(headers["content-length"]))
            self.received.append((head.decode().split(" ")[1], headers, body))
            if self.answer is None:
                break
            writer.write(self.answer)
            if b"connection: close" in self.answer:
                break
        writer.close()


async def until(condition, seconds=10.0):
    """Give the loop its turns until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.005)


def tell(path, **models):
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({"models": models}))
    fresh.replace(path)


def with_traffic(folder, gateway, story, **models):
    """Run story(traffic, gateway) with a Traffic that has read the wishes; returns the counts at the end."""

    async def run():
        port = await gateway.start()
        tell(folder / "control.json", **models)
        url, images = f"http://127.0.0.1:{port}", "http://images"
        one = traffic.Traffic(url, images, folder / "control.json", folder / "counts.json")
        one.read_control()
        await story(one)
        tell(folder / "control.json")
        one.read_control()
        await until(lambda: not any(s.in_flight for s in one._streams.values()))
        one.write_counts()
        one._pool.close()
        gateway.stop()
        return json.loads((folder / "counts.json").read_text())["models"]

    return asyncio.run(run())


def received(gateway, n):
    return lambda one: until(lambda: len(gateway.received) >= n)


def test_requests_carry_the_image_in_its_look_and_say_where_it_is_shown(tmp_path):
    gateway = StubGateway()
    with_traffic(tmp_path, gateway, received(gateway, 20), products={"rate": 500, "look": "dark"})
    for path, headers, body in gateway.received:
        document, request = parse_infer(headers, body)
        index = looks.index_of(document["id"])
        np.testing.assert_array_equal(request.inputs[0].as_numpy()[0], looks.live_images("dark")[index])
        assert path == "/v2/models/products/infer"
        assert headers["x-davy-image"] == f"http://images/live/{index}.png?look=dark"
        assert headers["x-davy-segment"] in {"camera=front", "camera=side"}
        assert headers["x-davy-key"].startswith("user-")


def test_ids_are_unique_and_images_do_not_repeat_within_a_round(tmp_path):
    gateway = StubGateway()
    with_traffic(tmp_path, gateway, received(gateway, 300), products={"rate": 2_000})
    ids = [parse_infer(headers, body)[0]["id"] for _, headers, body in gateway.received]
    assert len(set(ids)) == len(ids)
    assert len({looks.index_of(identity) for identity in ids}) == len(ids)


def test_a_user_always_has_the_same_camera_and_a_third_have_the_side_one():
    shares = Counter(traffic.camera(user) for user in range(traffic.USERS))
    assert shares[b"side"] / traffic.USERS == traffic.SIDE_CAMERA_SHARE


def test_the_rate_is_the_one_asked_for(tmp_path):
    gateway = StubGateway()
    begun = time.monotonic()
    counts = with_traffic(tmp_path, gateway, received(gateway, 1_000), a={"rate": 800}, b={"rate": 200})
    elapsed = time.monotonic() - begun
    assert counts["a"]["sent"] / counts["b"]["sent"] == pytest.approx(4, rel=0.4)
    assert sum(c["sent"] + c["skipped"] for c in counts.values()) <= 1_000 * elapsed + 200


def test_connections_are_kept_and_used_again(tmp_path):
    gateway = StubGateway()
    with_traffic(tmp_path, gateway, received(gateway, 200), products={"rate": 500})
    assert gateway.connections < 50


@pytest.mark.parametrize(
    ("answer", "count", "outcome"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "ok", "200"),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}", "ok", "200"),
        (b"HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\n{}", "failed", "500"),
        (b"HTTP/1.1 404 No\r\ncontent-length: 2\r\n\r\n{}", "failed", "404"),
        (b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", "unrouted", "404"),
        (b"nonsense\r\n\r\n", "failed", "connection"),
        (None, "failed", "connection"),
    ],
)
def test_each_end_of_a_request_has_its_count(tmp_path, answer, count, outcome):
    gateway = StubGateway(answer)
    counts = with_traffic(tmp_path, gateway, received(gateway, 1), products={"rate": 200})["products"]
    assert counts["sent"] > 0
    assert counts[count] == counts["sent"] == counts["outcomes"][outcome]


def test_a_model_without_a_route_is_asked_once_a_second_only(tmp_path):
    gateway = StubGateway(b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n")

    async def story(one):
        await received(gateway, 1)(one)
        await until(lambda: one._streams["products"].unrouted >= 1)
        assert one._streams["products"]._next_at > asyncio.get_running_loop().time() + 0.5

    with_traffic(tmp_path, gateway, story, products={"rate": 100})


def test_a_late_answer_is_a_timeout(monkeypatch, tmp_path):
    monkeypatch.setattr(traffic, "TIMEOUT_SECONDS", 0.05)
    gateway = StubGateway(b"HTTP/1.1 200 OK\r\n")  # never complete

    async def story(one):
        await received(gateway, 3)(one)
        one._streams["products"].stop()
        await asyncio.sleep(0.1)
        one._pool.give_up_late()

    counts = with_traffic(tmp_path, gateway, story, products={"rate": 100})["products"]
    assert counts["failed"] == counts["sent"] == counts["outcomes"]["timeout"]


def test_what_finds_every_connection_busy_is_skipped_not_queued(monkeypatch, tmp_path):
    monkeypatch.setattr(traffic, "MAX_CONNECTIONS", 2)
    gateway = StubGateway(b"HTTP/1.1 200 OK\r\n")

    async def story(one):
        await until(lambda: one._streams["products"].skipped >= 10)
        assert one._streams["products"].sent == 2
        one._pool.close()

    with_traffic(tmp_path, gateway, story, products={"rate": 500})


def test_a_closed_gateway_counts_as_failed(tmp_path):
    async def run():
        server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        answers = []
        assert gateway_client.Pool("127.0.0.1", port, 4, 10.0).send(b"", answers.append)
        await until(lambda: answers)
        return answers[0]

    assert asyncio.run(run()).outcome == "connection"


def test_a_request_whose_connection_is_still_being_made_ends_with_the_pool():
    async def run():
        gateway = StubGateway(b"HTTP/1.1 200 OK\r\n")
        pool, answers = gateway_client.Pool("127.0.0.1", await gateway.start(), 4, 10.0), []
        assert pool.send(b"", answers.append)
        pool.close()
        await until(lambda: answers)
        gateway.stop()
        return answers[0]

    assert asyncio.run(run()).outcome == "connection"


def test_a_wrong_control_file_is_said_and_not_followed(tmp_path, capsys):
    gateway = StubGateway()

    async def story(one):
        tell(tmp_path / "control.json", products={"rate": 10, "look": "upside-down"})
        one.read_control()
        assert one._streams["products"].wish == traffic.Wish(300.0, "plain")

    with_traffic(tmp_path, gateway, story, products={"rate": 300, "look": "plain"})
    assert "upside-down" in capsys.readouterr().out


@pytest.mark.parametrize(
    "models",
    [
        {"a b": {"rate": 1}},
        {"a": {"rate": -1}},
        {"a": {"rate": "much"}},
        {"a/b": {}},
        {"a": {"rate": float("nan")}},
    ],
)
def test_bad_wishes_are_refused(models):
    with pytest.raises(ValueError, match=r"name|rate|convert"):
        traffic.parse_control(json.dumps({"models": models}))


def test_it_ends_when_asked_and_leaves_its_counts(tmp_path):
    gateway = StubGateway()

    async def run():
        port = await gateway.start()
        tell(tmp_path / "control.json", products={"rate": 200})
        control, counts = tmp_path / "control.json", tmp_path / "counts.json"
        one = traffic.Traffic(f"http://127.0.0.1:{port}", "http://images", control, counts)
        stop = asyncio.Event()
        running = asyncio.create_task(one.run(stop))
        await until(lambda: len(gateway.received) >= 20)
        stop.set()
        await running
        gateway.stop()
        return json.loads(counts.read_text())["models"]["products"]

    counts = asyncio.run(run())
    assert counts["ok"] == counts["sent"] >= 20
    assert counts["in_flight"] == 0
    assert counts["p99_ms"] >= counts["p50_ms"] > 0


def test_quantiles_of_few_and_of_no_values():
    assert traffic.quantile([], 0.5) is None
    assert traffic.quantile([3.0], 0.99) == 3.0
    assert traffic.quantile([float(i) for i in range(100)], 0.99) == 99.0
