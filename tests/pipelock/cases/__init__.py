"""What a launcher may rely on in a pipelock 2.3.0 container; every expectation was measured on that release.

``core`` cases are those a launcher depends on; ``detail`` cases are nice to match.
"""

from tests.pipelock.cases import (
    addresses,
    blocking,
    brokered,
    config,
    endpoints,
    guarded,
    intercept,
    limits,
    plain,
    process,
    strict,
    topology,
    tunnel,
)
from tests.pipelock.table import CASES, CORE, GROUPS, Case, Differs

__all__ = [
    "CASES",
    "CORE",
    "GROUPS",
    "Case",
    "Differs",
    "addresses",
    "blocking",
    "brokered",
    "config",
    "endpoints",
    "guarded",
    "intercept",
    "limits",
    "plain",
    "process",
    "strict",
    "topology",
    "tunnel",
]
