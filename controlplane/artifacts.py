"""Where is a version's artifact on this machine? A cached copy whose digest was verified, made once."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

from django.conf import settings

from controlplane import mlflow_sync
from controlplane.models import ModelVersion
from controlplane.problems import Problem

REMOTE_SCHEMES = frozenset({"mlflow-artifacts", "s3", "gs", "abfss"})  # what MLflow reads for us


class ArtifactError(Problem):
    """An artifact that cannot be had, or that is not what was registered; `retry` says whether it may be had later."""

    def __init__(self, code: str, detail: str, *, retry: bool = False) -> None:
        super().__init__(502, code, detail, ({"pointer": "/artifact_uri", "code": code, "detail": detail},))
        self.retry = retry


def digest_of(folder: Path) -> str:
    """The sha256 of a bundle: of the lines `<sha256 of file>  <relative posix path>\\n`, sorted by path.

    It is what `find . -type f | sort | xargs sha256sum | sha256sum` prints inside the folder, less each "./".
    A link is refused: it would let a bundle say one thing here and another elsewhere.
    """
    lines = hashlib.sha256()
    files: list[tuple[str, Path]] = []
    for path in folder.rglob("*"):
        if path.is_symlink():
            raise ArtifactError("artifact_has_link", f"{path.relative_to(folder)} is a symbolic link")
        if path.is_file():
            files.append((path.relative_to(folder).as_posix(), path))
    if not files:
        raise ArtifactError("artifact_empty", f"no files in {folder}")
    for name, path in sorted(files):
        lines.update(f"{_sha256_of(path)}  {name}\n".encode())
    return lines.hexdigest()


def fetch(version: ModelVersion) -> Path:
    """The folder of a version's artifact, read-only by agreement: downloaded and verified at the first call.

    Raises ArtifactError when it cannot be had or its digest differs from the registered one. Safe for several
    processes at once: each downloads to its own folder, and the first to rename wins.
    """
    kept = cache_folder(version.digest)
    if kept.is_dir():
        return kept
    return keep(version.artifact_uri, expected=version.digest)[1]


def keep(uri: str, expected: str | None = None) -> tuple[str, Path]:
    """Download the artifact at `uri` into the cache; return its digest and folder."""
    root = settings.VAR / "artifacts"
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="incoming-", dir=root) as scratch:
        folder = _download(uri, Path(scratch))
        digest = digest_of(folder)
        if expected is not None and digest != expected:
            raise ArtifactError(
                "digest_differs", f"the artifact at {uri} has digest {digest}, registered is {expected}"
            )
        kept = cache_folder(digest)
        try:
            folder.rename(kept)
        except OSError:  # another process was first: its copy has the same digest
            if not kept.is_dir():
                raise
    return digest, kept


def cache_folder(digest: str) -> Path:
    """Where the verified copy of a digest is, or will be."""
    return Path(settings.VAR) / "artifacts" / digest


def _download(uri: str, scratch: Path) -> Path:
    try:
        return _downloaded(uri, scratch)
    except mlflow_sync.MlflowError as err:
        code = "artifact_missing" if err.gone else "artifact_unreachable"
        raise ArtifactError(code, f"{uri}: {err.detail}", retry=not err.gone) from err


def _downloaded(uri: str, scratch: Path) -> Path:
    if urlsplit(uri).scheme in {"models", "runs"}:
        uri = mlflow_sync.resolve(uri)
    parts = urlsplit(uri)
    if parts.scheme in {"", "file"}:
        return _copy(Path(unquote(parts.path)).resolve(), parts.netloc, scratch)
    if parts.scheme in REMOTE_SCHEMES and not (parts.scheme == "mlflow-artifacts" and parts.netloc):
        return mlflow_sync.download(uri, scratch)
    raise ArtifactError("artifact_not_allowed", f"artifacts are not read from {uri}")


def _copy(source: Path, host: str, scratch: Path) -> Path:
    """A copy, so that what was verified cannot change underneath; links stay links and are refused by digest_of."""
    roots = settings.ARTIFACT_ROOTS
    if host not in {"", "localhost"} or not any(source.is_relative_to(root) for root in roots):
        raise ArtifactError("artifact_not_allowed", f"{source} is not under DAVY_ARTIFACT_ROOTS")
    if not source.is_dir():
        raise ArtifactError("artifact_missing", f"there is no folder {source}")
    return Path(shutil.copytree(source, scratch / "bundle", symlinks=True))


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
