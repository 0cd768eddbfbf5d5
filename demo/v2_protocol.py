"""How are images and answers written on the wire? The V2 inference protocol over HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from demo.backend_utils import InferenceRequest, InferenceResponse, Tensor

NUMPY_TYPES = {"UINT8": "u1", "INT64": "<i8", "FP32": "<f4"}
V2_TYPES = {"u1": "UINT8", "i8": "INT64", "f4": "FP32"}
LENGTH_HEADER = "inference-header-content-length"


class RefusedError(Exception):
    """A request that cannot be served: an HTTP status and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True)
class Reply:
    """One HTTP answer; a header_length marks binary tensors after that many bytes of JSON."""

    status: int = 200
    body: bytes = b""
    header_length: int | None = None

    def to_bytes(self) -> bytes:
        """Return the answer as it goes over the wire."""
        head = f"HTTP/1.1 {self.status} .\r\ncontent-length: {len(self.body)}\r\n"
        if self.header_length is None:
            head += "content-type: application/json\r\n"
        else:
            head += f"content-type: application/octet-stream\r\n{LENGTH_HEADER}: {self.header_length}\r\n"
        return head.encode() + b"\r\n" + self.body


def as_json(document: Any, status: int = 200) -> Reply:
    """Answer a document."""
    return Reply(status, json.dumps(document).encode())


def parse_infer(headers: Mapping[str, str], body: bytes) -> tuple[dict[str, Any], InferenceRequest]:
    """Return the JSON part of a V2 infer request, and the request for model.py; RefusedError 400 when malformed."""
    try:
        length = int(headers.get(LENGTH_HEADER, len(body)))
        document, offset, tensors = json.loads(body[:length]), length, []
        for part in document["inputs"]:
            kind = np.dtype(NUMPY_TYPES[part["datatype"]])
            size = part.get("parameters", {}).get("binary_data_size")
            if size is None:
                array = np.array(part["data"], dtype=kind)
            else:
                array = np.frombuffer(body[offset : offset + size], dtype=kind)
                offset += size
            tensors.append(Tensor(part["name"], array.reshape(part["shape"])))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RefusedError(400, f"malformed infer request: {error!r}") from error
    forwarded = {name: value for name, value in headers.items() if name.startswith("x-davy-")}
    return document, InferenceRequest(document.get("id", ""), tensors, forwarded)


def encode(model: str, document: dict[str, Any], response: InferenceResponse) -> Reply:
    """Return the V2 answer: the outputs asked for (all when none are), binary where asked."""
    if response.error is not None:
        return as_json({"error": response.error.message()}, 500)
    all_binary = document.get("parameters", {}).get("binary_data_output", False)
    asked = {part["name"]: part.get("parameters", {}) for part in document.get("outputs", [])}
    outputs, binary = [], b""
    for tensor in response.output_tensors:
        if asked and tensor.name() not in asked:
            continue
        array = tensor.as_numpy()
        output: dict[str, Any] = {
            "name": tensor.name(),
            "datatype": V2_TYPES[array.dtype.str[1:]],
            "shape": list(array.shape),
        }
        if asked.get(tensor.name(), {}).get("binary_data", all_binary):
            data = array.tobytes()
            output["parameters"] = {"binary_data_size": len(data)}
            binary += data
        else:
            output["data"] = array.ravel().tolist()
        outputs.append(output)
    answer = {"id": document.get("id", ""), "model_name": model, "model_version": "1", "outputs": outputs}
    header = json.dumps(answer).encode()
    return Reply(200, header + binary, len(header) if binary else None)
