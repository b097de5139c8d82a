"""All that a campaign has: what can be harmed, and who is told."""

import sys
from typing import NamedTuple

from tests.campaign.clock import Clock
from tests.campaign.disk import Disk, Tmpfs
from tests.campaign.images import Images
from tests.campaign.news import News
from tests.campaign.releases import Releases
from tests.support.appliance import Appliance
from tests.support.farm import Node


class World(NamedTuple):
    """An appliance, its nodes, what is around them, and who takes its news.

    `clock` is there where all have a clock that jumps.
    """

    appliance: Appliance
    nodes: list[Node]
    disk: Disk
    temporary: Tmpfs
    images: Images
    releases: Releases
    news: News
    clock: Clock | None

    @property
    def programs(self) -> list[Appliance | Node]:
        """The appliance, and its nodes."""
        return [self.appliance, *self.nodes]

    def program(self, release: str = "") -> list[str]:
        """The beginning of Construir's command line, as it is today or at an earlier release."""
        words = self.releases.within(release) if release else []
        words += self.clock.within() if self.clock else []
        return [*words, *self.temporary.within(), sys.executable, "-m", "construir_ftp"]
