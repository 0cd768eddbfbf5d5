"""Which arrays are in an uploaded npz file? Read without trust."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from typing import Any, BinaryIO

from numpy.lib import format as npy
from numpy.typing import NDArray


def read(data: bytes, max_unpacked_bytes: int) -> dict[str, NDArray[Any]]:
    """The arrays of an npz file by name; ValueError when it is damaged, pickled or unpacks to too much."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > max_unpacked_bytes:
                raise ValueError(f"unpacks to more than {max_unpacked_bytes} bytes")
            arrays = {}
            for member in members:
                with archive.open(member) as file:
                    arrays[member.filename.removesuffix(".npy")] = _array(file, member.file_size)
            return arrays
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError) as err:
        raise ValueError(f"not an npz file: {err}") from None


def _array(file: Any, size: int) -> NDArray[Any]:
    """One npy member of `size` bytes; numpy would allocate whatever its header claims, so look first."""
    content: bytes = file.read(size)
    stream: BinaryIO = io.BytesIO(content)
    version = npy.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = npy.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, _, dtype = npy.read_array_header_2_0(stream)
    else:
        raise ValueError(f"npy format {version} is not read here")
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(content) - stream.tell():
        raise ValueError(f"an array of shape {shape} and type {dtype} is not what the member holds")
    stream.seek(0)
    array: NDArray[Any] = npy.read_array(stream, allow_pickle=False)
    return array
