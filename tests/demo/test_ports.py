"""Ports: the last ones, the preferred ones, or others, and never one that somebody else has."""

import socket

from demo import ports


def never_busy(first: int, width: int) -> bool:
    return True


def test_a_free_machine_gets_the_preferred_ports() -> None:
    assert ports.choose({}, never_busy) == ports.Choice(dict(ports.PREFERRED), ())


def test_a_busy_port_is_replaced_and_said() -> None:
    choice = ports.choose({}, lambda first, width: first != 8000)
    assert choice.ports["web"] == 8010
    assert choice.notes == ("port 8000 (web) is busy: 8010 is used",)


def test_the_last_choice_is_kept_without_a_word() -> None:
    choice = ports.choose({"web": 8730}, never_busy)
    assert choice.ports["web"] == 8730
    assert choice.notes == ()


def test_a_model_server_gets_three_ports_in_a_row() -> None:
    asked: list[tuple[int, int]] = []
    ports.choose({}, lambda first, width: not asked.append((first, width)))
    assert (8500, 3) in asked


def test_a_port_with_a_listener_cannot_be_claimed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert not ports.Claims().take(listener.getsockname()[1])


def test_two_starts_cannot_claim_the_same_port() -> None:
    first, second = ports.Claims(), ports.Claims()
    port = free_port()
    assert first.take(port)
    assert not second.take(port)
    first.release()
    assert second.take(port)
    second.release()


def test_a_claim_of_three_is_all_or_nothing() -> None:
    claims, other = ports.Claims(), ports.Claims()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        last = listener.getsockname()[1]
        assert not claims.take(last - 2, 3)
        assert other.take(last - 2) == ports.is_free(last - 2)
    other.release()


def test_the_choice_survives_in_a_file(tmp_path) -> None:
    path = tmp_path / "ports.json"
    ports.save(path, {"web": 8001})
    assert ports.load(path) == {"web": 8001}
    path.write_text("{broken")
    assert ports.load(path) == {}


def test_a_model_server_that_moves_takes_its_three_ports_along() -> None:
    before = {"web": 8000, "triton_a": 8500}
    assert ports.moved(before, {"web": 8000, "triton_a": 8510}) == {8500: 8510, 8501: 8511, 8502: 8512}
    assert ports.moved({}, {"web": 8000}) == {}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
