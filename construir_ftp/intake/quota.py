"""What one contributor may have waiting: so many jobs, and so many bytes, with those being sent and checked."""

from collections import Counter

from construir_ftp.config import FtpSection
from construir_ftp.errors import RefusedError
from construir_ftp.jobs.spool import Record, Spool


class Share:
    """An upload's part in its contributor's quota, from its first byte until it is a job, or gone."""

    def __init__(self, quotas: "Quotas", contributor: str, size_bytes: int) -> None:
        self._quotas, self.contributor, self.size_bytes = quotas, contributor, size_bytes

    def grow(self, size_bytes: int) -> None:
        """It is so large now. Raises RefusedError (552) if that is too much."""
        self.size_bytes = size_bytes
        self._quotas.check_bytes(self.contributor)

    def most_bytes(self) -> int:
        """How large it may become, beside what waits and comes now."""
        return self.size_bytes + self._quotas.left_bytes(self.contributor)

    def end(self) -> None:
        """Give it back."""
        self._quotas.under_way.discard(self)


class Quotas:
    """Those of all contributors. Safe to use from several threads."""

    def __init__(self, spool: Spool, ftp: FtpSection) -> None:
        self._spool, self._ftp = spool, ftp
        self.under_way: set[Share] = set()
        self._counted: dict[str, Record | None] = {}
        self._jobs: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()

    def begin(self, contributor: str, size_bytes: int = 0) -> Share:
        """A share for an upload, of which so much is there already. Raises RefusedError (552) if there is none left."""
        self._count()
        shares = [share for share in list(self.under_way) if share.contributor == contributor]
        self._check_number(self._jobs[contributor], len(shares))
        share = Share(self, contributor, size_bytes)
        self.under_way.add(share)
        return share

    def check(self, record: Record) -> None:
        """Refuse (RefusedError, 552) a job that may not wait beside those that do. Shares don't count."""
        self._count()
        self._check_number(self._jobs[record.contributor], 0)
        self._check_bytes(self._bytes[record.contributor] + record.upload_bytes)

    def check_bytes(self, contributor: str) -> None:
        """Refuse (RefusedError, 552) what has come, if the contributor has too much waiting and under way with it."""
        self._check_bytes(self._taken_bytes(contributor))

    def left_bytes(self, contributor: str) -> int:
        """What may come yet."""
        return max(0, int(self._ftp.max_waiting) - self._taken_bytes(contributor))

    def _taken_bytes(self, contributor: str) -> int:
        """What waits and what is coming."""
        self._count()
        coming = sum(share.size_bytes for share in list(self.under_way) if share.contributor == contributor)
        return self._bytes[contributor] + coming

    def _check_number(self, waiting: int, under_way: int) -> None:
        most = self._ftp.max_waiting_jobs
        if waiting + under_way < most:
            return
        what = f"you have {waiting} jobs waiting"
        if under_way:
            what = f"{what}, and {under_way} more are being sent or checked"
        raise RefusedError(f"{what}; {most} is the most allowed; wait for one to run, or delete one", 552)

    def _check_bytes(self, size_bytes: int) -> None:
        most = self._ftp.max_waiting
        if size_bytes > most:
            raise RefusedError(
                f"your waiting jobs and this one take more than {most} bytes, the most allowed; "
                "wait for one to run, or delete one",
                552,
            )

    def _count(self) -> None:
        records = self._spool.records("queue")
        if records is not self._counted:
            known = [record for record in records.values() if record]
            self._jobs = Counter(record.contributor for record in known)
            sizes: Counter[str] = Counter()
            for record in known:
                sizes[record.contributor] += record.upload_bytes
            self._bytes, self._counted = sizes, records
