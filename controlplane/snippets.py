"""What does a newcomer copy to get to the first rollout? The `davy` command, curl, and Python. PURE."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Snippet:
    """A few lines to copy; `tool` is what runs them."""

    tool: str
    text: str


Step = list[Snippet]  # the same act with each tool, the shortest first


def first_steps(url: str, model: str, fleet: str) -> dict[str, Step]:
    """How to register a version of `model`, freeze its reference and start a rollout on `fleet`.

    `url` is Davy's, without a slash at its end. The commands are complete but for the artifact and the token.
    """
    post = "curl -fsS -H \"Authorization: Bearer $DAVY_TOKEN\" -H 'Content-Type: application/json'"
    versions, rollouts = f"/models/{model}/versions", "/rollouts"
    version = '{"version": "v1", "artifact_uri": "file:///artifacts/v1", "digest": "<sha256>"}'
    rollout = f'{{"model": "{model}", "version": "v1", "fleet": "{fleet}"}}'
    client = f'from davy.client import Client\n\ndavy = Client("{url}", os.environ["DAVY_TOKEN"])'
    return {
        "register": [
            Snippet("davy", f"davy register {model} v1 --artifact ./v1 --create-model"),
            Snippet(
                "curl",
                f"""{post} {url}/api/v1/models -d '{{"name": "{model}"}}'\n"""
                f"{post} {url}/api/v1{versions} \\\n  -d '{version}'",
            ),
            Snippet(
                "Python",
                f'import os\n{client}\ndavy.post("/models", {{"name": "{model}"}})\n'
                f'davy.post("{versions}", {version})',
            ),
        ],
        "reference": [
            Snippet("davy", f"davy register {model} v1 --artifact ./v1 --reference reference.npz"),
            Snippet(
                "curl",
                'curl -fsS -X PUT -H "Authorization: Bearer $DAVY_TOKEN" '
                f"-H 'Content-Type: application/x-npz' \\\n"
                f"  --data-binary @reference.npz {url}/api/v1{versions}/v1/reference",
            ),
            Snippet(
                "Python",
                f'with open("reference.npz", "rb") as npz:\n'
                f'    davy.put("{versions}/v1/reference", npz.read(), "application/x-npz")',
            ),
        ],
        "rollout": [
            Snippet("davy", f"davy rollout start {model} v1 --fleet {fleet} --wait"),
            Snippet("curl", f"{post} {url}/api/v1{rollouts} \\\n  -d '{rollout}'"),
            Snippet(
                "Python",
                f'rollout = davy.post("{rollouts}", {rollout})\ndavy.wait_rollout(rollout["id"])',
            ),
        ],
    }
