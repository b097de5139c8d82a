"""What tests of signatures share: an appliance's key, and a result that it has signed."""

from pathlib import Path

import pytest

from construir_ftp.jobs.spool import Spool
from construir_ftp.trust.seal import Seal
from tests.support import signed


@pytest.fixture
def seal(spool: Spool) -> Seal:
    return signed.seal(spool.path)


@pytest.fixture
def done(spool: Spool, seal: Seal) -> Path:
    return signed.result(spool, seal)
