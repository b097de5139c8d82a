"""Which base images stay, although others have taken their place."""

from construir_ftp.config import Config
from construir_ftp.jobs import references
from construir_ftp.jobs.spool import Spool


def for_results(settings: Config) -> list[str]:
    """The digests of those that results in done/ were made on, as many as the configuration keeps for that."""
    path = settings.spool_path()
    if not (path / "done").is_dir():
        return []
    return references.bases_of_results(Spool(path), settings.images.keep_for_results)
