"""davy register: make a version known, with its digest and its reference."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from davy.client import path
from davy.screen import Output, OutputOption, UsageError, page, session


def digest_of(folder: Path) -> str:
    """The sha256 of a bundle: of the lines `<sha256 of file>  <relative posix path>\\n`, sorted by path.

    UsageError for a folder without files, or with a link.
    """
    lines = hashlib.sha256()
    files = [(file.relative_to(folder).as_posix(), file) for file in folder.rglob("*") if not file.is_dir()]
    for name, file in sorted(files):
        if file.is_symlink():
            raise UsageError(f"{file} is a symbolic link; a bundle holds files only")
        lines.update(f"{_sha256_of(file)}  {name}\n".encode())
    if not files:
        raise UsageError(f"there are no files in {folder}")
    return lines.hexdigest()


def _sha256_of(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def register(
    model: Annotated[str, typer.Argument()],
    version: Annotated[str, typer.Argument()],
    artifact: Annotated[str, typer.Option(help="The bundle: a folder here, or a URI the server can read.")],
    digest: Annotated[
        str, typer.Option(help="Its sha256; computed when the artifact is a folder here.")
    ] = "",
    reference: Annotated[str, typer.Option(help="An npz of embeddings and confidences.")] = "",
    metadata: Annotated[str, typer.Option(help="A JSON object to keep with the version.")] = "",
    mlflow_run_id: Annotated[str, typer.Option(help="The run that made it.")] = "",
    create_model: Annotated[bool, typer.Option(help="Make the model when there is none.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Register a version. The same name and digest again changes nothing."""
    with session(output) as (client, screen):
        body = _body(version, artifact, digest, metadata, mlflow_run_id)
        arrays = _read(reference) if reference else b""
        if create_model:
            client.post("/models", {"name": model})
        found = client.post(path("models", model, "versions"), body)
        screen.line(f"registered {model} {version}, digest {str(found.get('digest'))[:12]}…")
        if arrays:
            where = path("models", model, "versions", version, "reference")
            found["reference"] = client.put(where, arrays, "application/x-npz")
            screen.line(f"reference of {found['reference'].get('rows')} rows")
        screen.result(found)
        screen.next(f"davy rollout start {model} {version} --fleet <fleet>", page(client, "models", model))


def _body(version: str, artifact: str, digest: str, metadata: str, mlflow_run_id: str) -> dict[str, Any]:
    folder = Path(artifact)
    if folder.is_dir():
        digest = digest or digest_of(folder)
        artifact = folder.resolve().as_uri()
    elif not digest:
        raise UsageError(f"{artifact} is no folder here, so its --digest is needed")
    body: dict[str, Any] = {"version": version, "artifact_uri": artifact, "digest": digest}
    if mlflow_run_id:
        body["mlflow_run_id"] = mlflow_run_id
    if metadata:
        try:
            body["metadata"] = json.loads(metadata)
        except ValueError as err:
            raise UsageError(f"--metadata is not JSON: {err}") from None
    return body


def _read(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as err:
        raise UsageError(f"{file} cannot be read: {err.strerror}") from None
