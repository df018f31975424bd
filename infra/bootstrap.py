"""What the servers of compose.yaml need once, and may be given again: bucket, pool, deployments."""

from __future__ import annotations

import logging
import os
import sys

from flows import project, serve
from sirl.errors import SirlError
from tasks import storage


def main() -> int:
    """Exit code 2 where a server refuses."""
    logging.basicConfig(level="WARNING", format="%(message)s")
    logging.getLogger("tasks").setLevel("INFO")
    try:
        storage.bootstrap(os.environ["SIRL_BUCKET"])
        root = project.find()
        serve.prepare(os.environ)
        serve.deploy(root, os.environ)
    except SirlError as error:
        sys.stderr.write(f"sirl: bootstrap: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
