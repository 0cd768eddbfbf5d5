"""Does `davy status` show every route and rollout, however many pages they come on?"""

from __future__ import annotations

import json

from tests.sdk.commands.conftest import a_rollout, routes
from tests.sdk.peer import Reply

PRODUCTS = {
    "model": "products",
    "stable": "v1",
    "canary": "v2",
    "weight_percent": 5.0,
    "observed_weight_percent": 4.8,
}
SHELF = {
    "model": "shelf",
    "stable": None,
    "canary": None,
    "weight_percent": 0,
    "observed_weight_percent": None,
}
ANSWERS = {
    "GET /models/products": {},
    "GET /models/socks": Reply(404, {"detail": "no model 'socks'"}),
    "GET /rollouts": {"items": [a_rollout("running")], "next": None},
}


def fleets():
    return [
        {"items": [{"name": "eu", "routes": [PRODUCTS]}], "next": "c1"},
        {"items": [{"name": "us", "routes": [SHELF]}], "next": None},
    ]


def test_routes_of_all_pages_and_rollouts_under_way_are_shown(peer, davy):
    peer.respond = routes({**ANSWERS, "GET /fleets": fleets()})
    ran = davy("status")
    assert ran.out.splitlines()[:2] == [
        "eu  products  stable v1  canary v2 at 5 % (observed 4.8 %)",
        "us  shelf  stable none",
    ]
    assert "rollout 12 products v2 on local: running" in ran.out
    assert "next: davy rollout watch 12" in ran.out
    assert peer.to("/fleets")[1].path.endswith("?cursor=c1")
    assert peer.to("/rollouts")[0].path.endswith("?state=active")


def test_one_model_is_shown_alone_and_an_unknown_one_is_an_error(peer, davy):
    peer.respond = routes({**ANSWERS, "GET /fleets": fleets()})
    document = json.loads(davy("status", "products", "-o", "json").out)
    assert [route["fleet"] for route in document["routes"]] == ["eu"]
    assert peer.to("/rollouts")[0].path.endswith("model=products")
    ran = davy("status", "socks")
    assert (ran.code, "no model 'socks'" in ran.err) == (1, True)
