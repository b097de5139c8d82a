"""What the operator has decided of an appliance: whether it takes uploads, takes jobs, and lets machines run.

    <spool>/service.json   replaced in one step; missing while nothing is decided, which is: all of it

Whoever takes an upload or a job asks here first. What is under way goes on to its end; machines that are not to run
stand still meanwhile.
"""

from contextlib import suppress
from pathlib import Path

import msgspec

from construir_ftp import files, schema
from construir_ftp.errors import RefusedError
from construir_ftp.jobs import modes

FILE = "service.json"
DRAINED = "the appliance is being taken out of service"
PAUSED = "the operator has paused it"


class Service(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`why` is told to anyone, where something is not so; of uploads `why_no_uploads`, if that is another reason."""

    takes_uploads: bool = True
    takes_jobs: bool = True
    runs_machines: bool = True
    why: str = ""
    why_no_uploads: str = ""

    def refusal(self) -> str:
        """Why no uploads are taken; empty while they are."""
        return "" if self.takes_uploads else self.why_no_uploads or self.why

    def paused(self) -> "Service":
        """The same, with machines that stand still; uploads are refused if they were, for the reason that they were."""
        return Service(
            takes_uploads=self.takes_uploads,
            takes_jobs=False,
            runs_machines=False,
            why=PAUSED,
            why_no_uploads=self.refusal(),
        )

    def demand_uploads(self) -> None:
        """Raises RefusedError (452) while no uploads are taken."""
        if not self.takes_uploads:
            raise RefusedError(f"no uploads are taken at the moment: {self.refusal()}; try again later", 452)


def read(spool: Path) -> Service:
    """What is decided of the appliance with that spool."""
    with suppress(OSError, msgspec.MsgspecError):
        return schema.from_json(files.read_anew(spool / FILE), Service)
    return Service()


def decide(spool: Path, service: Service) -> None:
    """Decide; on return it survives a power cut. Whoever runs jobs has to be woken to notice it at once."""
    if service == Service():
        (spool / FILE).unlink(missing_ok=True)
        files.fsync(spool)
    else:
        files.replace_durably(spool / FILE, msgspec.json.encode(service), modes.EVERYONES)
