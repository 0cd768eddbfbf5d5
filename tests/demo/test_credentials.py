"""credentials.env: private, complete, readable by shells."""

import subprocess

from demo import credentials

VALUES = {"DAVY_URL": "http://127.0.0.1:8000", "DAVY_PASSWORD": 'it\'s "$HOME" & more'}


def test_what_is_written_is_read_again(tmp_path) -> None:
    credentials.write(tmp_path / "credentials.env", VALUES)
    assert credentials.read(tmp_path / "credentials.env") == VALUES


def test_only_the_owner_may_read_it_even_when_it_was_open_before(tmp_path) -> None:
    path = tmp_path / "credentials.env"
    path.write_text("OLD=1\n")
    path.chmod(0o644)
    credentials.write(path, VALUES)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_shell_reads_the_same_values(tmp_path) -> None:
    path = tmp_path / "credentials.env"
    credentials.write(path, VALUES)
    script = f'. "{path}"; printf %s "$DAVY_PASSWORD"'
    told = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert told == VALUES["DAVY_PASSWORD"]


def test_no_file_means_no_credentials(tmp_path) -> None:
    assert credentials.read(tmp_path / "credentials.env") == {}
