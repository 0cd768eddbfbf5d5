"""Claims about Idempotency-Key, also between two requests at the same time."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.utils import timezone

from controlplane.models import AuditEntry, IdempotencyRecord, Model, Token


def post(client, body, key="k1", path="/api/v1/models"):
    return client.post(
        path, json.dumps(body), content_type="application/json", headers={"Idempotency-Key": key}
    )


def test_the_same_key_and_body_get_the_same_answer_and_one_effect(api):
    first, second = post(api, {"name": "m"}), post(api, {"name": "m"})
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.json() == first.json()
    assert second["Idempotency-Replayed"] == "true"
    assert AuditEntry.objects.filter(act="model.create").count() == 1


def test_the_same_key_with_another_body_or_path_is_refused(api):
    post(api, {"name": "m"})
    for answer in (post(api, {"name": "n"}), post(api, {"name": "m"}, path="/api/v1/models?x=1")):
        assert (answer.status_code, answer.json()["code"]) == (422, "key_reused")
    assert not Model.objects.filter(name="n").exists()


def test_a_refusal_of_the_content_is_an_answer_too(api):
    first, second = post(api, {"name": "Bad Name"}), post(api, {"name": "Bad Name"})
    assert (first.status_code, second.status_code) == (422, 422)
    assert second["Content-Type"] == "application/problem+json"


def test_keys_of_different_tokens_do_not_meet(api, client_for):
    post(api, {"name": "m"})
    assert post(client_for("deploy"), {"name": "n"}).status_code == 201


def test_while_the_first_is_in_flight_the_second_is_a_409(api):
    post(api, {"name": "m"})
    IdempotencyRecord.objects.update(status=None, body=b"")
    answer = post(api, {"name": "m"})
    assert (answer.status_code, answer.json()["code"]) == (409, "in_flight")


def test_a_claim_whose_worker_died_is_taken_over_after_a_minute(api):
    post(api, {"name": "m"})
    IdempotencyRecord.objects.update(status=None, body=b"", created_at=timezone.now() - timedelta(seconds=61))
    assert post(api, {"name": "m"}).status_code == 200
    assert "Idempotency-Replayed" in post(api, {"name": "m"}).headers


def test_a_server_error_keeps_nothing_so_that_a_retry_can_work(api, monkeypatch):
    from controlplane import registry

    def broken(**_kwargs):
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(registry, "create_model", broken)
        assert post(api, {"name": "m"}).status_code == 500
    assert post(api, {"name": "m"}).status_code == 201


def test_a_request_that_may_not_happen_leaves_no_claim(client_for):
    assert post(client_for("read"), {"name": "m"}).status_code == 403
    assert not IdempotencyRecord.objects.exists()


def test_a_replayed_token_is_the_same_and_is_not_readable_in_the_database(api):
    body = {"name": "ci", "scopes": ["read"]}
    first, second = (post(api, body, path="/api/v1/tokens").json()["token"] for _ in range(2))
    assert first == second
    assert Token.objects.filter(name="ci").count() == 1
    assert first.encode() not in bytes(IdempotencyRecord.objects.get().body)


@pytest.mark.parametrize("key", ["x" * 256, "a\tb"])
def test_a_bad_key_is_refused(api, key):
    assert post(api, {"name": "m"}, key=key).json()["code"] == "bad_key"


def test_records_are_forgotten_after_a_day(api):
    post(api, {"name": "m"})
    IdempotencyRecord.objects.update(created_at=timezone.now() - timedelta(hours=25))
    post(api, {"name": "n"}, key="k2")
    assert [record.key for record in IdempotencyRecord.objects.all()] == ["k2"]


@pytest.mark.django_db(transaction=True)
def test_of_two_at_the_same_time_one_acts(api):
    from concurrent.futures import ThreadPoolExecutor

    from django.db import connection

    def one(_index):
        try:
            return post(api, {"name": "m"}).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(one, range(8)))
    assert codes.count(201) >= 1
    assert set(codes) <= {201, 409}
    assert AuditEntry.objects.filter(act="model.create").count() == 1
