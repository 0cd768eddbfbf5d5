"""Claims about an HTTPRoute's rules: what the gateway is told, and that the split can be read back."""

from __future__ import annotations

import pytest

from rollout.drivers.kube.httproutes import Service, Split, rules, split_of

SERVICES = {"a": Service("products-a", 8000), "b": Service("products-b", 8000)}
MIRRORS = {"a": Service("shadow-a", 80), "b": Service("shadow-b", 80)}
PATH = "/v2/models/products"


def headers(rule) -> dict[str, str]:
    return {h["name"]: h["value"] for match in rule["matches"] for h in match.get("headers", [])}


def purpose(rule) -> str:
    (pair,) = rule["filters"][0]["requestHeaderModifier"]["set"]
    assert pair["name"] == "x-davy-purpose"
    return pair["value"]


@pytest.mark.parametrize("stable_slot", ["a", "b"])
@pytest.mark.parametrize("percent", [0, 0.0001, 0.01, 5, 33.33, 50, 99.99, 100])
@pytest.mark.parametrize("mirror_percent", [0, 0.5, 100])
def test_a_split_is_read_back_as_it_was_written(stable_slot, percent, mirror_percent):
    split = Split(stable_slot, percent, mirror_percent)
    found = split_of(rules(split, PATH, SERVICES, MIRRORS), stable_slot, SERVICES, MIRRORS)
    assert found is not None
    assert (found.percent, found.mirror_percent) == (pytest.approx(percent), pytest.approx(mirror_percent))


def test_the_roles_only_name_the_slots():
    written = rules(Split("a", 5), PATH, SERVICES, {})
    assert split_of(written, "b", SERVICES, {}) == Split("b", 95)


def test_a_header_pins_a_request_to_a_role_and_pinned_requests_say_so():
    pinned = {headers(rule)["x-davy-pin"]: rule for rule in rules(Split("b", 5), PATH, SERVICES, {})[:2]}
    assert [ref["name"] for ref in pinned["canary"]["backendRefs"]] == ["products-a"]
    assert [ref["name"] for ref in pinned["stable"]["backendRefs"]] == ["products-b"]
    assert {purpose(rule) for rule in pinned.values()} == {"pinned"}


def test_everybody_else_is_split_as_live_traffic():
    live = rules(Split("a", 5), PATH, SERVICES, {})[-1]
    assert headers(live) == {}
    assert purpose(live) == "live"
    assert {ref["name"]: ref["weight"] for ref in live["backendRefs"]} == {
        "products-a": 950_000,
        "products-b": 50_000,
    }


def test_copies_go_to_the_canary_s_mirror_and_only_of_live_requests():
    *pinned, live = rules(Split("a", 0, 25), PATH, SERVICES, MIRRORS)
    assert live["filters"][1]["requestMirror"]["backendRef"]["name"] == "shadow-b"
    assert all(len(rule["filters"]) == 1 for rule in pinned)


@pytest.mark.parametrize(
    "refs",
    [
        [],
        [{"name": "products-a", "port": 8000}],
        [{"name": "products-a", "port": 8000}, {"name": "other", "port": 8000}],
        [{"name": n, "port": 8000, "weight": 0} for n in ("products-a", "products-b")],
        [{"name": n, "port": 8000} for n in ("products-a", "products-b", "other")],
    ],
)
def test_rules_that_are_no_split_of_the_two_slots_have_no_weight(refs):
    assert split_of([{"backendRefs": refs}], "a", SERVICES, {}) is None


def test_a_weight_that_is_left_out_is_the_schema_s_1():
    refs = [{"name": "products-a", "port": 8000}, {"name": "products-b", "port": 8000, "weight": 3}]
    assert split_of([{"backendRefs": refs}], "a", SERVICES, {}) == Split("a", 75)
