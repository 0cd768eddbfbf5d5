"""What does the camera do to the images? The looks that live traffic can take, and the image source shows."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]

DATA = Path(__file__).parent / "data" / "fashion-mnist-20k.npz"


def _dark(images: Images) -> Images:
    return (images * 0.45).astype(np.uint8)


def _rotated(images: Images) -> Images:
    return np.ascontiguousarray(np.rot90(images, axes=(1, 2)))


def _noise(images: Images) -> Images:
    noise = np.random.default_rng(20261120).normal(0, 40, images.shape)
    return np.clip(images + noise, 0, 255).astype(np.uint8)


LOOKS: dict[str, Callable[[Images], Images]] = {
    "plain": lambda images: images,
    "dark": _dark,
    "rotated": _rotated,
    "noise": _noise,
    "new-camera": lambda images: _noise(_dark(_rotated(images))),
}


@cache
def _array(name: str) -> npt.NDArray[Any]:
    with np.load(DATA) as data:
        return np.asarray(data[name])


def live_labels() -> npt.NDArray[Any]:
    """Return (8000,) uint8: the class of each live image, as an annotator would give it."""
    return _array("live_labels")


def class_names() -> list[str]:
    """Return the names of the 10 classes, in the order of the labels."""
    return [str(name) for name in _array("classes")]


@cache
def live_images(look: str) -> Images:
    """Return the live images (8000, 28, 28) uint8 in a look; KeyError names an unknown one."""
    return LOOKS[look](_array("live_images"))


def index_of(request_id: str) -> int:
    """Return the live image that a request of demo/traffic.py carried: its id ends in -<index>.

    ValueError when the id is not of that form.
    """
    return int(request_id.rsplit("-", 1)[-1])
