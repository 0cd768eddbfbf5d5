"""Does the substitute speak the V2 protocol as Triton does, over the same bundles?"""

import asyncio
import json
import shutil
import urllib.error
import urllib.request

import numpy as np
import pytest

from demo import looks, train
from demo.substitute import Connection, Server, read_config

IMAGE = looks.live_images("plain")[:1]


def copy_bundle(version, folder, model):
    shutil.copytree(train.ARTIFACTS / version, folder)
    parameters = {"davy_model": model, "davy_version": version}
    lines = (f'parameters {{ key: "{k}" value {{ string_value: "{v}" }} }}\n' for k, v in parameters.items())
    with (folder / "config.pbtxt").open("a") as config:
        config.writelines(lines)


class Client:
    """Blocking requests to a substitute that runs in this process's event loop, made from threads of it."""

    def __init__(self, port):
        self._url = f"http://127.0.0.1:{port}"

    async def __call__(self, path, body=None, headers=None, post=False):
        return await asyncio.to_thread(self._ask, path, body, headers or {}, post)

    def _ask(self, path, body, headers, post):
        data = body if body is not None else (b"" if post else None)
        request = urllib.request.Request(self._url + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()


def with_substitute(repository, story):
    """Run story(client) against a substitute of the repository with every model loaded."""

    async def run():
        server = Server(repository)
        await server.load_all()
        listening = await asyncio.get_running_loop().create_server(lambda: Connection(server), "127.0.0.1", 0)
        try:
            return await story(Client(listening.sockets[0].getsockname()[1]))
        finally:
            listening.close()
            await server.close()

    return asyncio.run(run())


@pytest.fixture
def repository(tmp_path):
    copy_bundle("v1", tmp_path / "products", "products")
    return tmp_path


def binary_request(outputs=(), identity="a", image=IMAGE):
    part = {"name": "image", "shape": list(image.shape), "datatype": "UINT8"}
    part["parameters"] = {"binary_data_size": image.nbytes}
    asked = [{"name": name, "parameters": {"binary_data": True}} for name in outputs]
    header = json.dumps({"id": identity, "inputs": [part], "outputs": asked}).encode()
    return header + image.tobytes(), {"Inference-Header-Content-Length": str(len(header))}


def json_request(image=IMAGE, identity="a"):
    part = {"name": "image", "shape": list(image.shape), "datatype": "UINT8", "data": image.ravel().tolist()}
    return json.dumps({"id": identity, "inputs": [part]}).encode()


def test_it_says_that_it_is_the_substitute(repository):
    status, _, body = with_substitute(repository, lambda ask: ask("/v2"))
    assert status == 200
    assert json.loads(body)["name"] == "davy-substitute"


def test_json_and_binary_answers_agree(repository):
    async def story(ask):
        plain = await ask("/v2/models/products/infer", json_request())
        body, headers = binary_request(["probabilities"])
        return plain, await ask("/v2/models/products/infer", body, headers)

    (_, _, plain), (_, headers, binary) = with_substitute(repository, story)
    document = json.loads(plain)
    outputs = {output["name"]: output for output in document["outputs"]}
    length = int(headers["inference-header-content-length"])
    (probabilities,) = json.loads(binary[:length])["outputs"]
    assert document["id"] == "a"
    assert set(outputs) == {"probabilities", "embedding", "label"}
    assert probabilities["shape"] == [1, 10]
    np.testing.assert_allclose(
        np.frombuffer(binary[length:], "<f4"), outputs["probabilities"]["data"], rtol=1e-6
    )
    assert outputs["label"]["data"] == [int(np.argmax(outputs["probabilities"]["data"]))]


def test_requests_at_the_same_time_get_their_own_answers(repository):
    images = looks.live_images("plain")[:80]

    async def story(ask):
        bodies = [json_request(image[None], f"r-{i}") for i, image in enumerate(images)]
        return await asyncio.gather(*(ask("/v2/models/products/infer", body) for body in bodies))

    documents = [json.loads(body) for _, _, body in with_substitute(repository, story)]
    labels = [output["data"][0] for d in documents for output in d["outputs"] if output["name"] == "label"]
    assert [document["id"] for document in documents] == [f"r-{i}" for i in range(80)]
    expected = train.serve(train.ARTIFACTS / "v1", images).probabilities.argmax(axis=1)
    assert labels == expected.tolist()


def test_a_failing_request_is_500_and_says_why(repository):
    copy_bundle("v3", repository / "returns", "returns")
    flat = json_request(np.full((1, 28, 28), 90, np.uint8))
    status, _, body = with_substitute(repository, lambda ask: ask("/v2/models/returns/infer", flat))
    assert status == 500
    assert "contrast" in json.loads(body)["error"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"inputs": 3}',
        b'{"inputs": [{"name": "image", "shape": [1, 28, 28], "datatype": "UINT8", "data": [1]}]}',
        b'{"inputs": [{"name": "image", "shape": [1], "datatype": "COMPLEX", "data": [1]}]}',
    ],
)
def test_a_malformed_request_is_400_and_the_server_lives(repository, body):
    async def story(ask):
        return await ask("/v2/models/products/infer", body), await ask(
            "/v2/models/products/infer", json_request()
        )

    refused, good = with_substitute(repository, story)
    assert refused[0] == 400
    assert good[0] == 200


def test_unload_and_load_change_readiness_as_on_triton(repository):
    async def story(ask):
        steps = [await ask("/v2/models/products/ready")]
        steps.append(await ask("/v2/repository/models/products/unload", post=True))
        steps.append(await ask("/v2/models/products/ready"))
        steps.append(await ask("/v2/models/products/infer", json_request()))
        steps.append(await ask("/v2/repository/models/products/load", post=True))
        steps.append(await ask("/v2/models/products/ready"))
        return [status for status, _, _ in steps]

    assert with_substitute(repository, story) == [200, 200, 400, 404, 200, 200]


def test_load_takes_the_folder_as_it_is_now(repository):
    async def story(ask):
        shutil.rmtree(repository / "products")
        copy_bundle("v2", repository / "products", "products")
        await ask("/v2/repository/models/products/load", post=True)
        return await ask("/v2/models/products/config")

    _, _, body = with_substitute(repository, story)
    assert json.loads(body)["parameters"]["davy_version"] == {"string_value": "v2"}


def test_a_model_that_does_not_load_leaves_the_others_alone(repository):
    copy_bundle("v2", repository / "broken", "broken")
    (repository / "broken" / "1" / "model.onnx").write_bytes(b"not a network")

    async def story(ask):
        index = await ask("/v2/repository/index", post=True)
        loading = await ask("/v2/repository/models/broken/load", post=True)
        missing = await ask("/v2/repository/models/nothing/load", post=True)
        return index, loading, missing, await ask("/v2/models/products/infer", json_request())

    index, loading, missing, good = with_substitute(repository, story)
    assert json.loads(index[2]) == [
        {"name": "broken"},
        {"name": "products", "version": "1", "state": "READY"},
    ]
    assert loading[0] >= 400
    assert missing[0] == 400
    assert good[0] == 200


def test_the_parameters_of_a_configuration_are_read_in_either_spelling():
    text = 'max_batch_size: 4\nparameters { key: "a" value { string_value: "1" } }\n'
    text += 'parameters: { key: "b", value: { string_value: "2" } }\n'
    config = read_config("m", text)
    assert config["max_batch_size"] == 4
    assert config["parameters"] == {"a": {"string_value": "1"}, "b": {"string_value": "2"}}
