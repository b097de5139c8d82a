"""Promises of reply: what the server writes, the client reads, whichever of the two is older."""

import pytest

from construir_ftp.jobs import reply


@pytest.mark.parametrize("place", [3, 1, 0, -1])
def test_an_accepted_upload_is_read_as_it_was_written(place: int) -> None:
    found = reply.read_accepted(str(reply.accepted("20261122T104102Z-7f3a-hello", place)))
    assert found is not None
    assert found.job_id == "20261122T104102Z-7f3a-hello"
    assert found.place == {3: "number 3 in the queue", 1: "number 1 in the queue", 0: "already being run"}.get(
        place, "in the queue"
    )


def test_a_client_understands_servers_from_before() -> None:
    said = "226 Accepted as job ID, already taken from the queue; its result will be in /done/ID/"
    assert reply.read_accepted(said) == reply.Accepted("ID", "already taken from the queue")
