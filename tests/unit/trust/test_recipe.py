"""recipe: what a stranger's provenance names is a name here, or it is not that of a job."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from construir_ftp.errors import DamagedError
from construir_ftp.trust import recipe, verify
from construir_ftp.trust.seal import Seal

LAYER = {"name": "tools@0123456789ab", "uri": "construir:layer/tools@0123456789ab"}
RESULT = {"name": "20261129T120000Z-0000-greet", "uri": "construir:result/20261129T120000Z-0000-greet"}


@pytest.mark.parametrize(
    ("one", "is_job"),
    [
        (LAYER, True),
        (RESULT, True),
        ({**LAYER, "annotations": {"contents": ["cmake:amd64=3.25"]}}, True),
        ({**LAYER, "name": "x\0y"}, False),
        ({**LAYER, "name": "../layers"}, False),
        ({**RESULT, "name": "x\0y"}, False),
        ({**RESULT, "name": "/etc"}, False),
        ({**LAYER, "annotations": {"contents": None}}, False),
        ({**LAYER, "annotations": {"contents": 5}}, False),
        ({**LAYER, "annotations": {"contents": [["cmake"]]}}, False),
    ],
)
def test_what_a_job_ran_on_has_names_that_lead_nowhere_else(
    done: Path, seal: Seal, one: dict[str, Any], is_job: bool
) -> None:
    told = verify.check(done, [seal.key.public]).provenance
    definition = {**told.predicate["buildDefinition"], "resolvedDependencies": [one]}
    changed = msgspec.structs.replace(told, predicate={**told.predicate, "buildDefinition": definition})
    if is_job:
        assert recipe.of(changed).run == recipe.of(told).run
        return
    with pytest.raises(DamagedError, match=r"provenance\.intoto\.jsonl is not that of a job: "):
        recipe.of(changed)
