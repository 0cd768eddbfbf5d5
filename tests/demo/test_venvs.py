"""The venvs are made once, and again exactly when what they are made from changes."""

import pytest

from demo import venvs


def test_a_changed_lock_asks_for_a_new_install(tmp_path) -> None:
    lock = tmp_path / "requirements.txt"
    lock.write_text("a==1\n")
    first = venvs.fingerprint("app", files=[lock])
    assert venvs.fingerprint("app", files=[lock]) == first
    lock.write_text("a==2\n")
    assert venvs.fingerprint("app", files=[lock]) != first


def test_an_install_that_did_not_finish_is_not_taken_for_one(tmp_path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    assert not venvs.installed(tmp_path, "wanted")
    (tmp_path / venvs.STAMP).write_text("wanted")
    assert venvs.installed(tmp_path, "wanted")
    assert not venvs.installed(tmp_path, "another")


def test_a_failing_installer_tells_its_output() -> None:
    with pytest.raises(venvs.SetUpError, match=r"(?s)\(3\).*no such package"):
        venvs.run(["sh", "-c", "echo no such package; exit 3"])
