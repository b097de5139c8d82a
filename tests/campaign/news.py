"""Who is told of jobs that have ended: a webhook, and each contributor by mail; and whether they were told right."""

import re
import time
from collections.abc import Iterable, Iterator

from tests.support.ftpclient import users_text
from tests.support.receivers import Hooks, Mailbox

OPERATOR = "operator@example.org"
# For the next news to come, once all jobs have ended: what could not be told is tried again after a minute or more.
_TELLING_S = 180.0
# A mail names the job that it is about by the command that fetches its result.
_JOB = re.compile(r"construir fetch (\S+)")


def _address(contributor: str) -> str:
    return f"{contributor}@example.org"


def users_file(names: Iterable[str]) -> str:
    """Contributors who want mail."""
    return "".join(f'{users_text(name)}mail = "{_address(name)}"\n' for name in names)


class News:
    """What a real HTTP server and a real SMTP server were told."""

    def __init__(self, hooks: Hooks, mailbox: Mailbox) -> None:
        self.hooks, self.mailbox = hooks, mailbox

    def refuse(self, is_refused: bool) -> None:
        """Whether both servers are busy for the moment."""
        self.hooks.is_busy = self.mailbox.is_busy = is_refused

    def wait(self, jobs: set[str]) -> None:
        """Until all these jobs were told of, or nobody tells any more."""
        told, changed_s = 0, time.monotonic()
        while not (jobs <= self._hooked() and jobs <= {job for job, _ in self._mailed()}):
            if (now := len(self._hooked()) + len(self._mailed())) != told:
                told, changed_s = now, time.monotonic()
            if time.monotonic() > changed_s + _TELLING_S:
                return
            time.sleep(1)

    def violations(self, owners: dict[str, str], are_all_told: bool) -> Iterator[str]:
        """What was told wrongly, or not; `owners` has who sent each job that has a result."""
        mailed, there = self._mailed(), set(owners)
        for whom, told in (("the webhook", self._hooked()), ("its contributor", {job for job, _ in mailed})):
            if are_all_told:
                yield from (f"{job} has its result, and {whom} was not told" for job in sorted(there - told))
            yield from (f"{job} was told to {whom}, and has no result" for job in sorted(told - there))
        for job, to in sorted(mailed):
            if job in owners and to != _address(owners[job]):
                yield f"{job} of {owners[job]} was told to {to}"

    def _hooked(self) -> set[str]:
        return {event["job"] for event in self.hooks.events() if event["kind"] == "job"}

    def _mailed(self) -> set[tuple[str, str]]:
        """Each job that a mail is about, and who got that."""
        mails = list(self.mailbox.mails)
        return {
            (job, to) for all_of_them, mail in mails for to in all_of_them for job in _JOB.findall(mail.get_content())
        }
