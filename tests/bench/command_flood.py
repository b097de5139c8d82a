"""How long another address's login and listing take beside 64 sessions that send NOOP without end, and without them.

Run from the repository: .venv/bin/python -m tests.bench.command_flood [ROUNDS]
`measure` does it to any FTP server.
"""

import contextlib
import ftplib
import statistics
import time
from collections.abc import Sequence

from tests import bench
from tests.bench import Line
from tests.support.flood import Flood
from tests.support.ftpclient import PASSWORD, serving

SESSIONS = 64
RESULTS = 1000
BYSTANDER = "127.0.0.2"
ANYONE = ("USER anonymous", "PASS x")
AIM = "2 s, the worst of them"
# Longer than any FTP client waits; what takes longer counts as this.
_LONGEST_S = 120.0


def measure(address: tuple[str, int], user: str, password: str, rounds: int) -> list[Line]:
    """Seconds of a login, and of an NLST of /done after it, at another address than the flood's.

    First with nobody else there, then beside commands without end before login, then beside those after login.
    """
    before, after = Flood(*address, sessions=SESSIONS), Flood(*address, sessions=SESSIONS, first=ANYONE)
    floods: dict[str, contextlib.AbstractContextManager[None]] = {
        "with nobody else there": contextlib.nullcontext(),
        f"beside {SESSIONS} sessions of NOOP before login": before.going_on(),
        f"beside {SESSIONS} sessions of NOOP after login": after.going_on(),
    }
    logins, listings = list[Line](), list[Line]()
    for name, flood in floods.items():
        with flood:
            taken = [_take(address, user, password) for _ in range(rounds)]
        is_baseline = not logins
        logins.append(Line(f"{'(a) ' * is_baseline}login {name}", [login_s for login_s, _ in taken], AIM))
        listings.append(Line(f"{'(b) ' * is_baseline}NLST {name}", [listing_s for _, listing_s in taken], AIM))
    return [*logins, *listings]


def _take(address: tuple[str, int], user: str, password: str) -> tuple[float, float]:
    """Seconds from connecting until logged in, and of the listing."""
    client = ftplib.FTP(source_address=(BYSTANDER, 0))
    begun, logged_in_s = time.monotonic(), _LONGEST_S
    try:
        client.connect(*address, timeout=_LONGEST_S)
        client.login(user, password)
        logged_in_s = time.monotonic() - begun
        # ftplib has its data connections come from the same address.
        listing_s = bench.timed(lambda: client.retrlines("NLST /done", len))
        client.quit()
    except (OSError, EOFError, ftplib.Error):
        return logged_in_s, _LONGEST_S
    finally:
        client.close()
    return logged_in_s, listing_s


def print_worst(lines: Sequence[Line]) -> None:
    """Medians and worst, side by side."""
    print(f"{'':58}{'median ms':>11}{'worst ms':>11}")
    for line in lines:
        print(f"{line.name:58}{statistics.median(line.values) * 1000:11.1f}{max(line.values) * 1000:11.1f}")


def main(rounds: int) -> None:
    with bench.workplace() as place, serving(place) as house:
        for number in range(RESULTS):
            house.publish(f"job-{number}", {"output.log": b"x"})
        lines = measure(house.server.address, "alice", PASSWORD, rounds)
        bench.print_table(f"{SESSIONS} sessions of one address, another address's login and NLST", lines)
        print_worst(lines)


if __name__ == "__main__":
    main(*bench.counts(20))
