"""Does a bundle do on the real Triton what it does under test, and does its telemetry arrive?"""

import contextlib
import gzip
import json
import os
import shutil
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from davy.wire import decode_report

from demo import credentials, fleet_venv, looks, train, triton
from demo.places import Places
from tests.ports import free_row

pytestmark = pytest.mark.fleet


class Sink(BaseHTTPRequestHandler):
    """Takes telemetry as Davy does; it knows no reference."""

    reports = []
    predictions = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers["content-encoding"] == "gzip":
            body = gzip.decompress(body)
        if self.path.endswith("/telemetry/windows"):
            self.reports.append(decode_report(body))
        else:
            self.predictions.append(body)
        self.reply(202)

    def do_GET(self):
        self.reply(404)

    def reply(self, status):
        self.send_response(status)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format, *args):
        pass


@pytest.fixture(scope="module")
def sink():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=server.serve_forever).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def ask(url, path, body=b"", headers=None):
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url + path, body, headers or {}), timeout=30
        ) as answer:
            return answer.status, json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")


@pytest.fixture(scope="module")
def server(tmp_path_factory, sink):
    here = Places(tmp_path_factory.mktemp("triton") / "var")
    here.make()
    if fleet_venv.why_no_triton(here):
        pytest.skip(fleet_venv.why_no_triton(here))
    credentials.write(here.credentials_file, {"DAVY_TELEMETRY_TOKEN": "token"})
    for version in ("v1", "v3", "v4"):
        folder = here.repository("a") / version
        shutil.copytree(train.ARTIFACTS / version, folder)
        with (folder / "config.pbtxt").open("a") as config:
            config.write('parameters { key: "davy_model" value { string_value: "products" } }\n')
            config.write(f'parameters {{ key: "davy_version" value {{ string_value: "{version}" }} }}\n')
    port = free_row(3)
    environment = triton.environment(here, {**os.environ, "DAVY_URL": sink, "DAVY_WINDOW_SECONDS": "1"})
    process = subprocess.Popen(
        triton.command(here, "a", port),
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    until(lambda: ready(url, "v1") and ready(url, "v3") and ready(url, "v4"))
    yield url
    process.terminate()
    process.wait(30)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    triton.clear_shared_memory(here, "a")


def ready(url, model):
    try:
        with urllib.request.urlopen(f"{url}/v2/models/{model}/ready", timeout=5):
            return True
    except OSError:
        return False


def until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def infer(url, model, pixels, **headers):
    part = {"name": "image", "shape": [1, 28, 28], "datatype": "UINT8", "data": pixels.ravel().tolist()}
    body = json.dumps({"id": "products-t-1-7", "inputs": [part]}).encode()
    return ask(url, f"/v2/models/{model}/infer", body, {f"x-davy-{k}": v for k, v in headers.items()})


def counted(version, purpose):
    """The windows that arrived, of one version and purpose, with at least one request."""
    windows = [w for r in Sink.reports if r.version == version for w in r.windows]
    return [w for w in windows if w.purpose == purpose and w.n]


def test_the_real_server_answers_as_the_bundle_does_here(server):
    image = looks.live_images("plain")[7:8]
    status, answer = infer(server, "v1", image)
    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    expected = train.serve(train.ARTIFACTS / "v1", image)
    assert status == 200
    np.testing.assert_allclose(outputs["probabilities"], expected.probabilities[0], atol=1e-5)
    np.testing.assert_allclose(outputs["embedding"], expected.embeddings[0], atol=1e-4)


def test_only_the_refused_request_of_a_batch_is_500(server):
    images = [*looks.live_images("plain")[:6], np.full((28, 28), 90, np.uint8)]
    answers = {}

    def one(i):
        answers[i] = infer(server, "v3", images[i])

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answers[i][0] for i in range(6)] == [200] * 6
    assert answers[6][0] == 500
    assert "contrast" in answers[6][1]["error"]


def test_counts_arrive_with_purpose_segment_and_latency_since_the_router(server):
    image = looks.live_images("plain")[7]
    headers = {"key": "user-1", "segment": "camera=side", "start": f"{time.time() - 3:.6f}"}
    infer(server, "v4", image, purpose="live", **headers)
    infer(server, "v4", image, purpose="pinned", **headers)
    until(lambda: counted("v4", "live") and counted("v4", "pinned"))
    (window,) = counted("v4", "live")
    assert window.segment == {"camera": "side"}
    assert window.n == window.confidence.sum() == 1
    latency_bin = int(window.latency.argmax())
    assert 1e-4 * 10 ** (latency_bin / 16) == pytest.approx(3, rel=0.25)


def test_a_refused_image_arrives_as_an_error(server):
    infer(server, "v3", np.full((28, 28), 90, np.uint8), purpose="live", key="user-2")
    until(lambda: any(w.errors for w in counted("v3", "live")))


def test_uncertain_answers_arrive_with_their_image(server):
    probabilities = train.serve(train.ARTIFACTS / "v1", looks.live_images("plain")[:200]).probabilities
    confidences = probabilities.max(axis=1)
    index = int(np.flatnonzero((confidences > 0.35) & (confidences < 0.55))[0])
    url = f"http://images/live/{index}.png"
    infer(server, "v1", looks.live_images("plain")[index], purpose="live", image=url)
    until(lambda: any(url.encode() in body for body in Sink.predictions))
