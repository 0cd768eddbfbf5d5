"""Does every row of a file reach Davy, and is every rejected one shown by its place in the file?"""

from __future__ import annotations

import io
import json
import sys

import pytest
from davy.commands import telemetry

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
