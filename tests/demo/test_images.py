"""Does an annotator see the image that the traffic sent?"""

import io
import threading
import urllib.error
import urllib.request
from http.server import ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from demo import images, looks


@pytest.fixture(scope="module")
def url():
    server = ThreadingHTTPServer(("127.0.0.1", 0), images.Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.headers["content-type"] == "image/png"
        return np.asarray(Image.open(io.BytesIO(answer.read())).convert("L"))


@pytest.mark.parametrize("look", looks.LOOKS)
def test_the_png_shows_the_image_in_its_look(url, look):
    shown = fetch(f"{url}/live/7.png?look={look}")
    small = np.asarray(Image.fromarray(shown).resize((28, 28), Image.Resampling.BOX)).astype(float)
    sent = looks.live_images(look)[7].astype(float)
    assert shown.shape == (280, 280)
    assert np.corrcoef(small.ravel(), sent.ravel())[0, 1] > 0.95


def test_no_look_means_plain(url):
    np.testing.assert_array_equal(fetch(f"{url}/live/7.png"), fetch(f"{url}/live/7.png?look=plain"))


@pytest.mark.parametrize(
    "path",
    ["/", "/live/8000.png", "/live/7.png?look=upside-down", "/live/-1.png", "/../manage.py", "/live/7.jpg"],
)
def test_there_is_nothing_else(url, path):
    with pytest.raises(urllib.error.HTTPError) as refused:
        fetch(url + path)
    assert refused.value.code == 404


def test_a_dark_look_is_darker_and_a_rotated_one_holds_the_same_pixels():
    plain = looks.live_images("plain")[:50]
    assert looks.live_images("dark")[:50].mean() == pytest.approx(0.45 * plain.mean(), abs=1)
    np.testing.assert_array_equal(np.sort(looks.live_images("rotated")[0].ravel()), np.sort(plain[0].ravel()))


def test_noise_is_the_same_for_the_traffic_and_the_image_source():
    first = looks.live_images("noise").copy()
    looks.live_images.cache_clear()
    np.testing.assert_array_equal(looks.live_images("noise"), first)


def test_the_index_is_read_from_a_request_id():
    assert looks.index_of("my-model-a1b2c3-17-4711") == 4711
    with pytest.raises(ValueError, match="invalid literal"):
        looks.index_of("someone-else's")
