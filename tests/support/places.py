"""Where things are in the checkout."""

from pathlib import Path

PROJECT = Path(__file__).parents[2]
SUPPORT = PROJECT / "tests" / "support"
JOBS = PROJECT / "tests" / "jobs"
