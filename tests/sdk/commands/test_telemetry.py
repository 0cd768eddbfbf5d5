"""Does every row of a file reach Davy, and is every rejected one shown by its place in the file?"""

from __future__ import annotations

import io
import json
import sys

import pytest
from davy import wire
from davy.commands import telemetry

from tests.sdk.history_files import WRITERS, make_reference, rows, write
from tests.sdk.peer import Reply


def ok(asked):
    return Reply(202, {"accepted": len(asked.json()), "duplicate": 0, "rejected": []})


@pytest.mark.parametrize("content", ['[{"id": 1}, {"id": 2}]', '{"id": 1}\n\n{"id": 2}\n'])
def test_json_and_lines_are_read_alike(peer, davy, tmp_path, content):
    peer.respond = ok
    (tmp_path / "rows").write_text(content)
    ran = davy("telemetry", "push", str(tmp_path / "rows"))
    assert ran.code == 0
    assert peer.asked[0].json() == [{"id": 1}, {"id": 2}]
    assert "accepted 2, duplicate 0, rejected 0" in ran.out


def test_standard_input_is_read_for_a_dash(peer, davy, monkeypatch):
    peer.respond = ok
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"id": 1}'))
    assert davy("telemetry", "push", "-").code == 0


def test_rejected_rows_of_all_posts_are_shown_by_their_place_in_the_file(peer, davy, tmp_path, monkeypatch):
    monkeypatch.setattr(telemetry, "ROWS_PER_POST", 2)
    bad = [{"index": 1, "pointer": "/confidence", "code": "nan"}]
    peer.respond = lambda _: Reply(202, {"accepted": 1, "duplicate": 0, "rejected": bad})
    (tmp_path / "rows").write_text(json.dumps([{"id": i} for i in range(4)]))
    ran = davy("telemetry", "push", str(tmp_path / "rows"), "-o", "json")
    assert ran.code == 1
    document = json.loads(ran.out)
    assert (document["accepted"], [row["index"] for row in document["rejected"]]) == (2, [1, 3])
    assert "row 3: /confidence nan" in ran.err


@pytest.mark.parametrize("content", ["", "[1,", '{"id": 1}\nnot json', None])
def test_a_file_that_cannot_be_read_is_refused_before_anything_is_sent(peer, davy, tmp_path, content):
    if content is not None:
        (tmp_path / "rows").write_text(content)
    assert davy("telemetry", "push", str(tmp_path / "rows")).code == 1
    assert not peer.asked


# A history


def stored(asked):
    if asked.method == "GET":
        return Reply(200, make_reference().to_npz())
    return Reply(202, {"accepted": 1, "duplicate": 0})


def push_history(davy, path, *more):
    return davy("telemetry", "push", str(path), "--model", "products", "--version", "v7", *more)


@pytest.mark.parametrize("kind", sorted(WRITERS))
def test_a_history_is_counted_here_and_sent_hour_by_hour(peer, davy, tmp_path, kind):
    peer.respond = stored
    ran = push_history(davy, write(tmp_path / f"rows{kind}", rows(200)), "-o", "json")
    assert ran.code == 0
    assert json.loads(ran.out) == {"rows": 200, "accepted": 3, "duplicate": 0}
    sent = [wire.decode_report(asked.body) for asked in peer.asked if asked.method == "POST"]
    assert sum(window.n for report in sent for window in report.windows) == 200
    assert {report.reference_digest for report in sent} == {make_reference().digest}
    assert len({(report.reporter, report.sequence) for report in sent}) == 3


def test_a_wrong_value_is_named_before_anything_is_sent(peer, davy, tmp_path):
    peer.respond = stored
    content = rows(200)
    content["error"][199] = False
    content["confidence"][199] = 7
    ran = push_history(davy, write(tmp_path / "rows.csv", content))
    assert ran.code == 1
    assert "row 200, column confidence" in ran.err
    assert [asked.method for asked in peer.asked] == ["GET"]


def test_a_version_without_reference_is_told_what_to_do(peer, davy, tmp_path):
    peer.respond = lambda _: Reply(404, {"code": "no_reference", "title": "Not Found", "status": 404})
    ran = push_history(davy, write(tmp_path / "rows.npz", rows(20)))
    assert ran.code == 1
    assert "PUT one first" in ran.err


@pytest.mark.parametrize("more", [[], ["--model", "products"]])
def test_whose_history_it_is_has_to_be_said(peer, davy, tmp_path, more):
    ran = davy("telemetry", "push", str(write(tmp_path / "rows.csv", rows(20))), *more)
    assert (ran.code, peer.asked) == (1, [])
    assert "--model and --version" in ran.err


def test_columns_are_mapped_by_name(peer, davy, tmp_path):
    peer.respond = stored
    content = {"when": rows(20)["at"], "confidence": rows(20)["confidence"]}
    path = write(tmp_path / "rows.csv", content)
    assert push_history(davy, path).code == 1
    assert push_history(davy, path, "--column", "at=when").code == 0
    assert push_history(davy, path, "--column", "when").code == 1
