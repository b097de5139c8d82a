"""Promises of processors: machines are kept apart as long as there are processors for that."""

import os

from construir_ftp.machine import processors


def test_free_processors_come_first_and_are_given_back() -> None:
    there = sorted(os.sched_getaffinity(0))
    with processors.taken(1) as first, processors.taken(1) as second:
        assert first == {there[0]}
        assert second == {there[1 % len(there)]}
        with processors.taken(len(there) + 1) as every:
            assert every == set(there)
    with processors.taken(1) as again:
        assert again == first
