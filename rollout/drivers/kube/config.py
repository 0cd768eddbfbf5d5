"""How does a fleet's config name its Kubernetes cluster and the objects there? Checked before it is stored.

The cluster is named in one of four ways: `credentials` {server, ca, token}, `kubeconfig` (its text), `kubeconfig_file`
(a path on Davy's machine) or `in_cluster`. Secrets are stored sealed; they are opened only to make a client.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controlplane import outbound, sealing
from rollout.drivers.base import Bundle, DriverError

Json = dict[str, Any]

WAYS = ("credentials", "kubeconfig", "kubeconfig_file", "in_cluster")
SECRET_FIELDS = ("credentials/token", "kubeconfig")
_OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


@dataclass(frozen=True)
class Sealed:
    """A stored secret, not yet opened."""

    text: str

    def __repr__(self) -> str:
        return "Sealed()"


Secret = str | Sealed


@dataclass(frozen=True)
class Identity:
    """Where an API server is, how it proves who it is, and how Davy does."""

    server: str
    ca: str = ""  # PEM; "": the authorities that this machine trusts
    token: str = field(default="", repr=False)
    certificate: str = ""  # PEM of a client, with its key
    key: str = field(default="", repr=False)
    server_name: str = ""
    verify: bool = True


@dataclass(frozen=True)
class Access:
    """How a fleet's config names its cluster: exactly one of the four ways."""

    server: str = ""
    ca: str = ""
    token: Secret = field(default="", repr=False)
    kubeconfig: Secret = field(default="", repr=False)
    kubeconfig_file: str = ""
    in_cluster: bool = False

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> Access:
        """Read and check the cluster's part of a fleet's config. Raises ValueError("<field>: …")."""
        given = [way for way in WAYS if way in config]
        if len(given) != 1:
            ways = ", ".join(WAYS)
            raise ValueError(f"{(given or WAYS)[-1]}: exactly one of {ways} says which cluster it is")
        way, value = given[0], config[given[0]]
        if way == "credentials":
            return _credentials(value)
        if way == "kubeconfig":
            secret = _secret(value, "kubeconfig", "the text of a kubeconfig")
            if isinstance(secret, str):
                _identity_in(secret, None)
            return cls(kubeconfig=secret)
        if way == "kubeconfig_file":
            if not isinstance(value, str) or not Path(value).is_absolute():
                raise ValueError("kubeconfig_file: the absolute path of a kubeconfig is needed")
            return cls(kubeconfig_file=value)
        if value is not True:
            raise ValueError("in_cluster: true is needed, or one of the other ways")
        return cls(in_cluster=True)

    def identity(self) -> Identity:
        """Open the secrets. Raises ValueError, OSError, and InvalidToken when SECRET_KEY has changed since."""
        if self.kubeconfig_file:
            file = Path(self.kubeconfig_file)
            return _identity_in(file.read_text(), file.parent)
        if self.kubeconfig:
            return _identity_in(_opened(self.kubeconfig), None)
        return Identity(self.server, self.ca, _opened(self.token).strip())


def _credentials(raw: object) -> Access:
    given = known_only(raw, "credentials", {"server", "ca", "token"})
    token = _secret(given.get("token"), "credentials/token", "the token of a service account")
    plain = token.strip() if isinstance(token, str) else ""
    found = Identity(given.get("server", ""), given.get("ca", ""), plain)
    _check(found, "credentials/")
    return Access(server=found.server.rstrip("/"), ca=found.ca, token=token)


def _secret(value: object, where: str, what: str) -> Secret:
    if isinstance(value, dict) and isinstance(value.get("sealed"), str):
        return Sealed(value["sealed"])
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: {what} is needed")
    return value


def _opened(secret: Secret) -> str:
    return secret if isinstance(secret, str) else sealing.open_text({"sealed": secret.text})


def _check(found: Identity, before: str) -> None:
    """Raises ValueError("<before><part>: …") for what no call could be made with; never quotes a secret."""
    wrong = outbound.check_url(found.server) if isinstance(found.server, str) else "is needed"
    if wrong:
        raise ValueError(f"{before}server: the URL of the API server {wrong}")
    if not isinstance(found.ca, str):
        raise ValueError(f"{before}ca: certificates in PEM are needed")
    if found.ca:
        from cryptography import x509  # as yaml below: other fleets' processes start without it

        try:
            x509.load_pem_x509_certificates(found.ca.encode())
        except ValueError:
            raise ValueError(f"{before}ca: is not a certificate in PEM") from None
    if not re.fullmatch(r"[\x21-\x7e]*", found.token):
        raise ValueError(f"{before}token: has characters that no token has")


def _identity_in(kubeconfig: str, folder: Path | None) -> Identity:
    """Who a kubeconfig's current context says Davy is. `folder` resolves the files that it names; None: it may not.

    Raises ValueError("kubeconfig: …"). Users that run a command are refused: the API would start processes.
    """
    import yaml

    try:
        document = yaml.safe_load(kubeconfig)
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)  # the error's own text would quote the file
        raise ValueError(f"kubeconfig: is not YAML{f' in line {mark.line + 1}' if mark else ''}") from None
    context = _named(document, "contexts", _part(document, "current-context", str), "context")
    cluster = _named(document, "clusters", _part(context, "cluster", str), "cluster")
    user = _named(document, "users", _part(context, "user", str), "user")
    for key in ("exec", "auth-provider", "username"):
        if key in user:
            raise ValueError(f"kubeconfig: its user has `{key}`; give a token or a certificate instead")
    found = Identity(
        _part(cluster, "server", str).rstrip("/"),
        ca=_data(cluster, "certificate-authority", folder),
        token=_token(user, folder),
        certificate=_data(user, "client-certificate", folder),
        key=_data(user, "client-key", folder),
        server_name=str(cluster.get("tls-server-name", "")),
        verify=not cluster.get("insecure-skip-tls-verify", False),
    )
    _check(found, "kubeconfig: ")
    if not found.token and not (found.certificate and found.key):
        raise ValueError("kubeconfig: its user has neither a token nor a client certificate with its key")
    return found


def _part(node: object, name: str, kind: type) -> Any:
    if not isinstance(node, dict) or not isinstance(node.get(name), kind):
        raise ValueError(f"kubeconfig: {name} is missing")
    return node[name]


def _named(document: object, listed: str, name: str, kind: str) -> Json:
    for entry in _part(document, listed, list):
        if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(kind), dict):
            return dict(entry[kind])
    raise ValueError(f"kubeconfig: {listed} has no {name!r}")


def _data(node: Json, name: str, folder: Path | None) -> str:
    inline = node.get(f"{name}-data")
    if inline:
        try:
            return base64.b64decode(str(inline), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise ValueError(f"kubeconfig: {name}-data is not base64 of PEM") from None
    return _file(node, name, folder)


def _token(user: Json, folder: Path | None) -> str:
    return str(user.get("token") or _file(user, "tokenFile", folder)).strip()


def _file(node: Json, name: str, folder: Path | None) -> str:
    if not node.get(name):
        return ""
    if folder is None:
        raise ValueError(f"kubeconfig: {name} names a file; put its data in (kubectl config view --flatten)")
    return (folder / str(node[name])).read_text()


@dataclass(frozen=True)
class Naming:
    """Which object a model has: a pattern with {model}, or a name for each model."""

    where: str  # the config's field
    pattern: str = ""
    by_model: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, raw: object, where: str) -> Naming:
        """Raises ValueError("<where>: …")."""
        if isinstance(raw, str) and "{model}" in raw:
            return cls(where, pattern=raw)
        if isinstance(raw, dict) and raw and all(isinstance(name, str) and name for name in raw.values()):
            return cls(where, by_model=tuple(sorted(raw.items())))
        raise ValueError(f"{where}: a text with {{model}}, or an object of a name for each model, is needed")

    def of(self, model: str) -> str:
        """The model's object. Raises DriverError where there is none, or its name cannot be an object's."""
        name = self.pattern.replace("{model}", model) if self.pattern else dict(self.by_model).get(model, "")
        if not _OBJECT_NAME.fullmatch(name):
            why = f"{name!r} is no name of a Kubernetes object" if name else "the config does not name it"
            raise DriverError(f"{self.where} of {model}: {why}; name it in an object of names", retry=False)
        return name


def text(raw: object, where: str, *, names_version: bool = False) -> str:
    """A text of the config. With `names_version` it has {version} or {digest}. Raises ValueError("<where>: …")."""
    if not isinstance(raw, str) or not raw:
        raise ValueError(f"{where}: a text is needed")
    if names_version and "{version}" not in raw and "{digest}" not in raw:
        raise ValueError(f"{where}: {{version}} or {{digest}} is needed in it")
    return raw


def filled(pattern: str, bundle: Bundle) -> str:
    """The pattern with the bundle's {model}, {version} and {digest}."""
    pairs = {"model": bundle.model, "version": bundle.version, "digest": bundle.digest}
    for name, value in pairs.items():
        pattern = pattern.replace(f"{{{name}}}", value)
    return pattern


def known_only(raw: object, where: str, known: Iterable[str]) -> Mapping[str, Any]:
    """`raw` as an object with no other fields than `known`. Raises ValueError("<where>[/<name>]: …")."""
    if not isinstance(raw, dict):
        raise ValueError(f"{where}: an object is needed")
    for name in raw:
        if name not in known:
            path = f"{where}/{name}" if where else name
            raise ValueError(f"{path}: unknown; known are {', '.join(sorted(known))}")
    return raw
