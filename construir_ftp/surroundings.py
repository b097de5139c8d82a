"""The sections of construir.toml for what is around an appliance: people, browsers, other computers, a cluster.

As those of config, which puts them together, they say what can be set, and do nothing.
"""

from typing import ClassVar, Literal

from construir_ftp.schema import ADDRESS, HOST_AND_PORT, WEB_ADDRESS, Count, Port, Positive, Section
from construir_ftp.units import Duration, Size

# Keys of [notify] that make no sense without another one.
_BESIDE = {
    "smtp_user": "smtp",
    "smtp_password_file": "smtp_user",
    "webhook_secret_file": "webhook",
}


class NotifySection(Section, frozen=True):
    """Who is told of what, and how; see news."""

    paths: ClassVar = ("smtp_password_file", "webhook_secret_file")
    programs: ClassVar = ("sendmail", "command")
    shapes: ClassVar = {"operators": ADDRESS, "sender": ADDRESS, "smtp": HOST_AND_PORT, "webhook": WEB_ADDRESS}

    operators: tuple[str, ...] = ()
    smtp: str = ""
    smtp_tls: Literal["starttls", "tls", "none"] = "starttls"
    smtp_user: str = ""
    smtp_password_file: str = ""
    sendmail: str = ""
    sender: str = ""
    webhook: str = ""
    webhook_secret_file: str = ""
    command: tuple[str, ...] = ()
    jobs: bool = True
    max_per_hour: Positive = 10
    image_age: Duration = Duration.parse("30d")
    server: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.smtp and self.sendmail:
            raise ValueError("`sendmail`: expected no notify.smtp beside it")
        if self.operators and not self.tells_by_mail():
            raise ValueError("`operators`: expected notify.smtp or notify.sendmail beside it")
        if self.smtp_user and self.smtp_tls == "none":
            raise ValueError("`smtp_user`: expected TLS (notify.smtp_tls): a password never goes in clear")
        for key, other in _BESIDE.items():
            if getattr(self, key) and not getattr(self, other):
                raise ValueError(f"`{key}`: expected notify.{other} beside it")

    def tells_by_mail(self) -> bool:
        """Whether there is a way for mail."""
        return bool(self.smtp or self.sendmail)

    def tells(self) -> bool:
        """Whether anybody is told anything."""
        return bool(self.tells_by_mail() or self.webhook or self.command)


class SiteSection(Section, frozen=True):
    """The pages, and where `construir serve web` has them; see site."""

    paths: ClassVar = ("path",)

    path: str = ""
    title: str = "Construir"
    url: str = ""
    address: str = "127.0.0.1"
    port: Port = 8021


class NodesSection(Section, frozen=True):
    """What nodes owe the front, and where those of other computers have the disks of their jobs; see nodes."""

    paths: ClassVar = ("scratch",)
    above_zero: ClassVar = ("lease", "renew")

    lease: Duration = Duration.parse("1min")
    renew: Duration = Duration.parse("5s")
    scratch: str = ""
    admit: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.renew * 3 > self.lease:
            raise ValueError("`renew`: expected a third of nodes.lease at most")


class SlurmSection(Section, frozen=True):
    """Where nodes come from that Slurm starts, and how many; see slurm."""

    programs: ClassVar = ("command",)
    above_zero: ClassVar = ("time", "drain", "every", "memory")

    max_pilots: Count = 0
    jobs_per_pilot: Positive = 1
    processors: Positive = 1
    memory: Size = Size.parse("3GiB")
    time: Duration = Duration.parse("4h")
    drain: Duration = Duration.parse("2min")
    idle: Duration = Duration.parse("5min")
    every: Duration = Duration.parse("30s")
    partition: str = ""
    account: str = ""
    options: tuple[str, ...] = ()
    command: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.drain >= self.time:
            raise ValueError("`drain`: expected less than slurm.time")

    def is_used(self) -> bool:
        """Whether Slurm is to start any node."""
        return self.max_pilots > 0
