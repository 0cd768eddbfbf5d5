"""What can REST do? A readable list made from the OpenAPI document, without scripts or a CDN."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html, format_html_join
from ninja import NinjaAPI
from ninja.openapi.docs import DocsBase


class PlainDocs(DocsBase):
    """GET /api/v1/docs: each path with its verbs, meaning, parameters and body fields."""

    def render_page(self, request: HttpRequest, api: NinjaAPI, **kwargs: Any) -> HttpResponse:
        """The page for `api`; the machine-readable document is linked at the top."""
        schema = api.get_openapi_schema(path_params=kwargs)
        bodies = schema["components"]["schemas"]
        sections = format_html_join(
            "",
            '<h2 id="{}"><code>{} {}</code></h2><p>{}</p>{}',
            (
                (
                    operation["operationId"],
                    verb.upper(),
                    path,
                    operation.get("description", ""),
                    _fields(operation, bodies),
                )
                for path, verbs in sorted(schema["paths"].items())
                for verb, operation in verbs.items()
            ),
        )
        page = format_html(
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>Davy REST API</title>'
            "<main><h1>Davy REST API</h1>"
            '<p>As OpenAPI 3.1: <a href="{}">openapi.json</a></p>{}</main></html>',
            self.get_openapi_url(api, kwargs),
            sections,
        )
        return HttpResponse(page)


def _fields(operation: dict[str, Any], bodies: dict[str, Any]) -> str:
    """A list of the operation's parameters and of its body's fields, with their types; empty without any."""
    rows = [
        (item["name"], item["in"], _kind(item["schema"]), item["required"])
        for item in operation.get("parameters", [])
    ]
    for media in operation.get("requestBody", {}).get("content", {}).values():
        body = bodies.get(media["schema"].get("$ref", "").rpartition("/")[2], {})
        rows += [
            (name, "body", _kind(kind), name in body.get("required", ()))
            for name, kind in body.get("properties", {}).items()
        ]
    items = format_html_join(
        "",
        "<li><code>{}</code> ({}): {}{}</li>",
        ((name, where, kind, ", required" if required else "") for name, where, kind, required in rows),
    )
    return format_html("<ul>{}</ul>", items) if rows else ""


def _kind(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_kind(option) for option in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    return str(schema.get("$ref", schema.get("type", "any"))).rpartition("/")[2]
