"""When the waiting jobs are looked through for those whose end has been asked for."""

from construir_ftp.jobs import ipc
from construir_ftp.jobs.spool import Spool
from construir_ftp.runner.withdrawal import Withdrawal
from tests.support.records import send

NEVER_S, AT_ONCE_S = 3600, 0


def test_a_wish_is_seen_at_the_start_by_the_datagram_and_after_a_while(spool: Spool) -> None:
    seldom, always = Withdrawal(spool, NEVER_S), Withdrawal(spool, AT_ONCE_S)
    asked = [send(spool, after_s=number) for number in range(3)]
    spool.cancel(asked[0].id)
    assert [job.id for job in seldom.take()] == [asked[0].id]
    spool.cancel(asked[1].id)
    for datagram in (b"", ipc.WORK):
        seldom.hear(datagram)
        assert seldom.take() == []
    seldom.hear(ipc.CANCELLED)
    assert [job.id for job in seldom.take()] == [asked[1].id]
    assert always.take() == []
    spool.cancel(asked[2].id)
    assert [job.id for job in always.take()] == [asked[2].id]
