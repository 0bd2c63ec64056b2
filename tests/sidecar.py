"""Which sidecar the tests run: the image that CLAUDE_BOTTLE_PIPELOCK_IMAGE names, else the stand-in."""

import os

STAND_IN = "cb-pipelock-standin:latest"
SIDECAR = os.environ.get("CLAUDE_BOTTLE_PIPELOCK_IMAGE", STAND_IN)
IS_STAND_IN = SIDECAR.partition(":")[0] == STAND_IN.partition(":")[0]
