"""What does a bundle's model.py need of Triton? These names of triton_python_backend_utils, without it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np


class TritonError(Exception):
    """Why one request is answered with HTTP 500."""

    def message(self) -> str:
        """Return the text given."""
        return str(self)


@dataclass(frozen=True)
class Tensor:
    """A named array."""

    tensor_name: str
    array: np.ndarray[Any, Any]

    def name(self) -> str:
        """Return the tensor's name."""
        return self.tensor_name

    def as_numpy(self) -> np.ndarray[Any, Any]:
        """Return the array."""
        return self.array


@dataclass(frozen=True)
class InferenceRequest:
    """One request: its id, its forwarded headers as parameters, its inputs."""

    identity: str
    inputs: Sequence[Tensor]
    headers: dict[str, str] = field(default_factory=dict)

    def request_id(self) -> str:
        """Return the id that the client sent; empty when it sent none."""
        return self.identity

    def parameters(self) -> str:
        """Return the request's parameters as JSON, as Triton does."""
        return json.dumps(self.headers)


@dataclass(frozen=True)
class InferenceResponse:
    """One answer: outputs, or an error."""

    output_tensors: Sequence[Tensor] = ()
    error: TritonError | None = None


def get_input_tensor_by_name(request: InferenceRequest, name: str) -> Tensor | None:
    """Return the input of that name; None when the request has none."""
    return next((tensor for tensor in request.inputs if tensor.name() == name), None)


def load_model_code(path: Path) -> ModuleType:
    """Run a bundle's model.py (each call anew), giving it this module where it asks for Triton's.

    Nothing is written: a __pycache__ inside a bundle would change its digest.
    """
    sys.modules["triton_python_backend_utils"] = sys.modules[__name__]
    module = ModuleType(f"davy_bundle_{abs(hash(path.resolve()))}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look their module up by name
    exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    return module
