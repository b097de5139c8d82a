"""A newcomer, who types what README and docs/ say."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.appliance import NAME, PASSWORD, Appliance


class Newcomer:
    """Sits at `desk`, with the command on PATH and the password of a contributor in ~/.netrc, and types lines."""

    def __init__(self, place: Path, appliance: Appliance) -> None:
        self.desk = place / "desk"
        self.desk.mkdir()
        paths = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        places = {"CONSTRUIR_SPOOL": str(appliance.spool), "CONSTRUIR_CONFIG": str(appliance.config)}
        self._env = {**os.environ, "PATH": paths, **places, "HOME": str(place), "TMPDIR": str(place)}
        netrc = place / ".netrc"
        netrc.write_text(f'machine 127.0.0.1 login {NAME} password "{PASSWORD}"\n')
        netrc.chmod(0o600)
        # The base images are there: nobody downloads them again for a test.
        self._env.setdefault("XDG_CACHE_HOME", str(Path.home() / ".cache"))

    def type(self, line: str, answer: str = "") -> "subprocess.CompletedProcess[str]":
        """Run a line in a session without a terminal, and answer what it asks."""
        return subprocess.run(
            ["bash", "-ec", line],
            cwd=self.desk,
            env=self._env,
            input=answer,
            capture_output=True,
            text=True,
            timeout=300,
            start_new_session=True,
            check=False,
        )

    def at(self, appliance: Appliance, text: str) -> str:
        """Command lines as they are for this appliance."""
        return text.replace("server:2121", f"127.0.0.1:{appliance.port}")
