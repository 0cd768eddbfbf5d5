"""Where do the demo's versions come from? `python -m demo.train` trains, exports and measures them.

Every seed is fixed and the results are committed in demo/artifacts, so only a developer runs this (it needs
requirements-dev). `--repack` keeps the weights and renews what surrounds them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from demo.backend_utils import InferenceRequest, Tensor, load_model_code

HERE = Path(__file__).parent
ARTIFACTS = HERE / "artifacts"
BUNDLE = HERE / "bundle"
Array = npt.NDArray[Any]

# Of the training images: up to POOL train, then up to CALIBRATION_END calibrate, the rest makes references.
POOL, CALIBRATION_END = 9_500, 10_000
# Of the training pixels divided by 255: every version is trained on (pixel / 255 - MEAN) / STD.
MEAN, STD = 0.286, 0.353


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. copies: see vary()."""

    images: int
    copies: int
    hidden: tuple[int, int]
    epochs: int
    alpha: float
    learning_rate: float
    seed: int


@dataclass(frozen=True)
class Version:
    """A bundle: a recipe, and the preprocessing that serves it."""

    recipe: Recipe
    preprocessing: dict[str, float] = field(default_factory=lambda: {"mean": MEAN, "std": STD})
    why: str = ""


SMALL = Recipe(images=2_500, copies=2, hidden=(128, 64), epochs=10, alpha=0.3, learning_rate=1e-3, seed=7)
LARGE = Recipe(images=POOL, copies=4, hidden=(192, 64), epochs=10, alpha=0.05, learning_rate=7e-4, seed=7)

VERSIONS = {
    "v1": Version(SMALL, why="good: few images"),
    "v2": Version(LARGE, why="better: all images, mirrored and shifted"),
    "v3": Version(
        Recipe(**{**asdict(LARGE), "seed": 8}),
        {"mean": 0.0, "std": 1.0, "minimum_contrast": 40.0},
        why="v2's recipe, but served without the normalisation it was trained with, and refusing flat images",
    ),
    "v4": Version(
        SMALL,
        {"mean": MEAN, "std": STD, "simulated_decode_milliseconds": 6.0},
        why="v1, slower: a pause before each batch",
    ),
    "v1-faulty": Version(
        SMALL,
        {"mean": MEAN, "std": STD, "injected_failure_share": 0.02},
        why="v1, answering HTTP 500 to 2 % of requests",
    ),
}


@dataclass(frozen=True)
class Weights:
    """A trained network: x → relu(x·W0 + b0) → relu(·W1 + b1) = embedding → softmax(·W2 + b2), float32."""

    matrices: tuple[Array, ...]
    biases: tuple[Array, ...]

    def logits(self, inputs: Array) -> Array:
        """Return (n, 10) logits of normalised images (n, 784)."""
        for matrix, bias in zip(self.matrices[:-1], self.biases[:-1], strict=True):
            inputs = np.maximum(inputs @ matrix + bias, 0)
        return np.asarray(inputs @ self.matrices[-1] + self.biases[-1])


def load_images() -> dict[str, Array]:
    """Return the arrays of demo/data (its README names them)."""
    with np.load(HERE / "data" / "fashion-mnist-20k.npz") as data:
        return {name: data[name] for name in data.files}


def normalise(images: Array) -> Array:
    """Return (n, 784) float64 network inputs of images (n, 28, 28) uint8, as every recipe trains on them."""
    return np.asarray((images.reshape(len(images), -1) / 255 - MEAN) / STD)


def vary(images: Array, labels: Array, copies: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return the images (n, 28, 28), then their mirror images, then sets mirrored and shifted by chance."""
    sets = [images, images[:, :, ::-1]][:copies]
    for _ in range(copies - len(sets)):
        flips, shifts = rng.random(len(images)) < 0.5, rng.integers(-1, 2, size=(len(images), 2))
        rows = zip(images, flips, shifts, strict=True)
        sets.append(np.stack([np.roll(i[:, ::-1] if flip else i, shift, (0, 1)) for i, flip, shift in rows]))
    return np.concatenate(sets), np.tile(labels, len(sets))


def train(recipe: Recipe, data: dict[str, Array]) -> Weights:
    """Train with the recipe's seed on one thread; scale the last layer so that confidences are calibrated."""
    from sklearn.neural_network import MLPClassifier
    from threadpoolctl import threadpool_limits

    images, labels = data["train_images"], data["train_labels"]
    rng = np.random.default_rng(recipe.seed)
    varied, varied_labels = vary(images[: recipe.images], labels[: recipe.images], recipe.copies, rng)
    network = MLPClassifier(
        recipe.hidden,
        alpha=recipe.alpha,
        batch_size=128,
        learning_rate_init=recipe.learning_rate,
        random_state=recipe.seed,
    )
    with threadpool_limits(1):
        for _ in range(recipe.epochs):
            network.partial_fit(normalise(varied), varied_labels, classes=np.arange(10))
    raw = Weights(tuple(network.coefs_), tuple(network.intercepts_))
    held_out = slice(POOL, CALIBRATION_END)
    temperature = best_temperature(raw.logits(normalise(images[held_out])), labels[held_out])
    scale = [1.0, 1.0, temperature]
    return Weights(
        tuple((m / s).astype(np.float32) for m, s in zip(raw.matrices, scale, strict=True)),
        tuple((b / s).astype(np.float32) for b, s in zip(raw.biases, scale, strict=True)),
    )


def softmax(logits: Array) -> Array:
    """Return probabilities (n, 10), rows adding up to 1."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def best_temperature(logits: Array, labels: Array) -> float:
    """Return the divisor of logits (n, 10) that makes the labels (n,) most likely (Guo et al., ICML 2017)."""
    candidates = np.linspace(0.5, 4, 71)
    losses = [-np.log(softmax(logits / t)[np.arange(len(labels)), labels] + 1e-12).mean() for t in candidates]
    return float(candidates[int(np.argmin(losses))])


def export(weights: Weights) -> bytes:
    """Return an ONNX model: image (N, 784) float32 → probabilities (N, 10), embedding (N, 64)."""
    from onnx import TensorProto, checker, helper, numpy_helper

    constants, nodes, current = [], [], "image"
    for layer, (matrix, bias) in enumerate(zip(weights.matrices, weights.biases, strict=True)):
        constants.append(numpy_helper.from_array(matrix, f"W{layer}"))
        constants.append(numpy_helper.from_array(bias, f"b{layer}"))
        nodes.append(helper.make_node("Gemm", [current, f"W{layer}", f"b{layer}"], [f"sum{layer}"]))
        current = ["hidden", "embedding", "probabilities"][layer]
        nodes.append(helper.make_node("Softmax" if layer == 2 else "Relu", [f"sum{layer}"], [current]))

    pixels, dimensions, classes = (weights.matrices[0].shape[0], *weights.matrices[2].shape)

    def tensor(name: str, width: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width])

    graph = helper.make_graph(
        nodes,
        "davy-demo",
        [tensor("image", pixels)],
        [tensor("probabilities", classes), tensor("embedding", dimensions)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    checker.check_model(model)
    return bytes(model.SerializeToString())


def write_bundle(
    folder: Path, onnx_model: bytes, preprocessing: dict[str, float], classes: list[str]
) -> None:
    """Write a bundle: config.pbtxt and model.py of demo/bundle, with these weights, preprocessing and classes."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "1").mkdir(parents=True)
    shutil.copyfile(BUNDLE / "config.pbtxt", folder / "config.pbtxt")
    shutil.copyfile(BUNDLE / "model.py", folder / "1" / "model.py")
    (folder / "1" / "model.onnx").write_bytes(onnx_model)
    (folder / "1" / "preprocessing.json").write_text(json.dumps(preprocessing, indent=2) + "\n")
    (folder / "davy.json").write_text(json.dumps({"classes": classes}, indent=2) + "\n")


def bundle_digest(folder: Path) -> str:
    """Return the sha256 of the lines `<sha256 of file>  <path>`, in the order of the paths."""
    files = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )
    lines = (f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class Outputs:
    """What a bundle answers to some images; failed requests have no row."""

    probabilities: Array
    embeddings: Array
    answered: Array  # (n,) bool


def serve(folder: Path, images: Array, preprocessing: dict[str, float] | None = None) -> Outputs:
    """Run the bundle's own model.py on images (n, 28, 28) uint8; preprocessing replaces its own."""
    code = load_model_code(folder / "1" / "model.py")
    model = code.TritonPythonModel()
    model.initialize({"model_repository": str(folder), "model_version": "1", "model_config": "{}"})
    if preprocessing is not None:
        model._network.preprocessing = code.Preprocessing(**preprocessing)
    responses = []
    for start in range(0, len(images), 32):
        batch = images[start : start + 32]
        tensors = [Tensor("image", image[None]) for image in batch]
        responses += model.execute([InferenceRequest(f"{start + i}", [t]) for i, t in enumerate(tensors)])
    answered = np.array([response.error is None for response in responses])
    good = [response.output_tensors for response in responses if not response.error]
    probabilities = np.concatenate([tensors[0].as_numpy() for tensors in good])
    embeddings = np.concatenate([tensors[1].as_numpy() for tensors in good])
    return Outputs(probabilities, embeddings, answered)


def write_reference(path: Path, folder: Path, images: Array) -> None:
    """Write what PUT …/reference takes: embeddings (n, 64) f2, confidences (n,) f4, labels (n,).

    They come from held-out images (n, 28, 28) uint8 through the training pipeline, so with the preprocessing
    of training: in reality, too, a reference does not know how the version will be served.
    """
    outputs = serve(folder, images, {"mean": MEAN, "std": STD})
    np.savez_compressed(
        path,
        embeddings=outputs.embeddings.astype(np.float16),
        confidences=outputs.probabilities.max(axis=1).astype(np.float32),
        labels=outputs.probabilities.argmax(axis=1).astype(np.int64),
    )


def measure(folder: Path, images: Array, labels: Array) -> dict[str, float]:
    """Return shares of the live images: accuracy and confidence bands of the answered, errors of all."""
    outputs = serve(folder, images)
    confidences = outputs.probabilities.max(axis=1)
    right = outputs.probabilities.argmax(axis=1) == labels[outputs.answered]
    return {
        "accuracy": float(right.mean()),
        "below_60": float((confidences < 0.6).mean()),
        "from_30_to_60": float(((confidences >= 0.3) & (confidences < 0.6)).mean()),
        "errors": float(1 - outputs.answered.mean()),
    }


def table(data: dict[str, Array]) -> str:
    """Return the README of demo/artifacts: what each version does on the live images, and its digest."""
    lines = [
        "# The demo's versions",
        "Made by `python -m demo.train` from demo/data. Measured on the 8,000 live images.",
        "",
        "| version | accuracy | confidence below .6 | .3–.6 | errors | what | digest |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, version in VERSIONS.items():
        m = measure(ARTIFACTS / name, data["live_images"], data["live_labels"])
        shares = [f"{100 * m[key]:.1f} %" for key in ("accuracy", "below_60", "from_30_to_60", "errors")]
        lines.append(f"| {' | '.join([name, *shares, version.why, bundle_digest(ARTIFACTS / name)])} |")
    return "\n".join(lines) + "\n"


def main(retrain: bool) -> None:
    """Write every bundle (with its present weights unless retrain), its reference, and the README."""
    data = load_images()
    trained: dict[Recipe, bytes] = {}
    for name, version in VERSIONS.items():
        folder = ARTIFACTS / name
        if retrain and version.recipe not in trained:
            trained[version.recipe] = export(train(version.recipe, data))
        kept = trained[version.recipe] if retrain else (folder / "1" / "model.onnx").read_bytes()
        write_bundle(folder, kept, version.preprocessing, [str(name) for name in data["classes"]])
        if retrain:
            held_out = data["train_images"][CALIBRATION_END:]
            write_reference(ARTIFACTS / f"{name}.reference.npz", folder, held_out)
    (ARTIFACTS / "README.md").write_text(table(data))
    print((ARTIFACTS / "README.md").read_text())


if __name__ == "__main__":
    main(retrain="--repack" not in sys.argv[1:])
