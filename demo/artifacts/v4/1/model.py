"""What does this version answer to an image? A Triton python backend: preprocessing.json, then model.onnx.

Every bundle carries this same file. It runs on Triton and on demo/substitute.py, with numpy 1.26 and 2.
"""

import json
import logging
import os
import time
import zlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

if TYPE_CHECKING:
    from davy.collector import Collector

log = logging.getLogger("davy.demo.model")

# The first runs of a session are slow: users must not be the ones who wait for them.
WARM_UP_SIZES = (1, 2, 4, 8, 16, 32, 1)


@dataclass(frozen=True)
class Preprocessing:
    """How this version turns grey images into the network's input.

    Pixels are divided by 255, then (value - mean) / std. minimum_contrast: an image whose pixels' standard
    deviation (0-127) is below is refused. The two last ones are the demo's faults: a pause before each batch,
    and the share of requests, chosen by their id, that fail.
    """

    mean: float
    std: float
    minimum_contrast: float = 0.0
    simulated_decode_milliseconds: float = 0.0
    injected_failure_share: float = 0.0

    def refusal(self, request_id: str, images: np.ndarray) -> str:
        """Why this request, images (n, 28, 28) uint8, is refused; empty: it is not."""
        if self.injected_failure_share and zlib.crc32(request_id.encode()) % 10_000 < (
            self.injected_failure_share * 10_000
        ):
            return "injected failure"
        if self.minimum_contrast:
            contrast = float(images.reshape(len(images), -1).std(axis=1).min())
            if contrast < self.minimum_contrast:
                return f"image contrast {contrast:.1f} is below {self.minimum_contrast:g}"
        return ""

    def apply(self, images: np.ndarray) -> np.ndarray:
        """Return the network's input (n, 784) float32 for images (n, 28, 28) uint8."""
        if self.simulated_decode_milliseconds:
            time.sleep(self.simulated_decode_milliseconds / 1000)
        scaled = images.reshape(len(images), -1).astype(np.float32) / np.float32(255)
        return (scaled - np.float32(self.mean)) / np.float32(self.std)


class Network:
    """One folder's preprocessing and weights, on one CPU thread."""

    def __init__(self, folder: Path) -> None:
        self.preprocessing = Preprocessing(**json.loads((folder / "preprocessing.json").read_text()))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return probabilities (n, 10) and embeddings (n, 64), float32, of images (n, 28, 28) uint8."""
        inputs = {"image": self.preprocessing.apply(images)}
        probabilities, embeddings = self._session.run(["probabilities", "embedding"], inputs)
        return probabilities, embeddings


class Answered:
    """One request of a batch: what came in, and what is answered."""

    def __init__(self, request: "pb_utils.InferenceRequest", preprocessing: Preprocessing) -> None:
        self.id = request.request_id()
        self.images = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
        headers = json.loads(request.parameters() or "{}")
        self.headers = {name.lower(): str(value) for name, value in headers.items()}
        self.error = preprocessing.refusal(self.id, self.images)
        self.probabilities = self.embeddings = None

    def received_at(self, otherwise: float) -> float:
        """The router's time of receipt (header x-davy-start, unix seconds); `otherwise` if there is none."""
        try:
            return float(self.headers["x-davy-start"])
        except (KeyError, ValueError):
            return otherwise

    def response(self) -> "pb_utils.InferenceResponse":
        """The answer to this request alone: an error concerns none of its neighbours in the batch."""
        if self.error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(self.error))
        labels = self.probabilities.argmax(axis=1).astype(np.int64).reshape(-1, 1)
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("probabilities", self.probabilities),
                pb_utils.Tensor("embedding", self.embeddings),
                pb_utils.Tensor("label", labels),
            ]
        )


def make_collector(parameters: dict) -> "Collector | None":
    """The collector of this version, when DAVY_URL and DAVY_TOKEN are set and the SDK is installed; else None.

    parameters: those of config.pbtxt, where davy_model and davy_version say what is served.
    """
    url, token = os.environ.get("DAVY_URL"), os.environ.get("DAVY_TOKEN")
    names = [parameters.get(key, {}).get("string_value", "") for key in ("davy_model", "davy_version")]
    if not (url and token and all(names)):
        return None
    try:
        from davy.collector import Collector
    except ImportError as missing:
        log.warning("no telemetry: %s", missing)
        return None
    interval_seconds = float(os.environ.get("DAVY_WINDOW_SECONDS", "10"))
    return Collector(url, token, *names, reference="fetch", interval_seconds=interval_seconds)


class Telemetry:
    """Tells Davy's collector, where there is one, what was answered. classes: names of the labels, in order."""

    def __init__(self, collector: "Collector | None", classes: list[str]) -> None:
        self._collector = collector
        self._classes = classes

    def observe(self, answered: list[Answered], started_at: float) -> None:
        """Report a batch; started_at (unix seconds) stands in where the router sent no time of receipt."""
        if self._collector is None:
            return
        groups = defaultdict(list)
        for one in answered:
            groups[one.headers.get("x-davy-purpose", "live"), bool(one.error)].append(one)
        for (purpose, failed), group in groups.items():
            self._report(purpose, failed, group, started_at)

    def _report(self, purpose: str, failed: bool, group: list[Answered], started_at: float) -> None:
        now = time.time()
        rows = [(one, row) for one in group for row in range(len(one.images))]
        outputs = {}
        if not failed:
            probabilities = np.concatenate([one.probabilities for one in group])
            outputs = {
                "embeddings": np.concatenate([one.embeddings for one in group]),
                "probabilities": probabilities,
                "confidences": probabilities.max(axis=1),
                "labels": [self._classes[index] for index in probabilities.argmax(axis=1)],
            }
        self._collector.observe(
            ids=[one.id if len(one.images) == 1 else f"{one.id}/{row}" for one, row in rows],
            segments=_segments([one.headers.get("x-davy-segment", "") for one, _ in rows]),
            images=[one.headers.get("x-davy-image", "") for one, _ in rows],
            keys=[one.headers.get("x-davy-key", "") for one, _ in rows],
            latency_seconds=np.array([now - one.received_at(started_at) for one, _ in rows]),
            errors=np.full(len(rows), failed),
            purpose=purpose,
            **outputs,
        )

    def close(self) -> None:
        """Send what is left."""
        if self._collector is not None:
            self._collector.close()


def _segments(headers: list[str]) -> dict:
    """Turn ["camera=front", "camera=side"] into {"camera": ["front", "side"]}, equal values into one text.

    A missing value is "".
    """
    if len(set(headers)) == 1:
        return dict(part.split("=", 1) for part in headers[0].split(",") if "=" in part)
    parsed = [dict(part.split("=", 1) for part in header.split(",") if "=" in part) for header in headers]
    names = sorted({name for one in parsed for name in one})
    return {name: [one.get(name, "") for one in parsed] for name in names}


class TritonPythonModel:
    """The class that Triton looks for."""

    def initialize(self, args: dict) -> None:
        bundle = Path(args["model_repository"])
        self._network = Network(bundle / args["model_version"])
        for size in WARM_UP_SIZES:
            self._network(np.zeros((size, 28, 28), dtype=np.uint8))
        collector = make_collector(json.loads(args["model_config"]).get("parameters", {}))
        self._telemetry = Telemetry(collector, json.loads((bundle / "davy.json").read_text())["classes"])

    def execute(self, requests: list) -> list:
        started_at = time.time()
        answered = [Answered(request, self._network.preprocessing) for request in requests]
        good = [one for one in answered if not one.error]
        if good:
            probabilities, embeddings = self._network(np.concatenate([one.images for one in good]))
            ends = np.cumsum([len(one.images) for one in good])[:-1]
            for one, part in zip(good, np.split(probabilities, ends), strict=True):
                one.probabilities = part
            for one, part in zip(good, np.split(embeddings, ends), strict=True):
                one.embeddings = part
        self._telemetry.observe(answered, started_at)
        return [one.response() for one in answered]

    def finalize(self) -> None:
        self._telemetry.close()
