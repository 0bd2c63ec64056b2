"""What ``cli.sh`` runs, by path: the name it was invoked by comes first, then the user's words."""

from __future__ import annotations

import sys
import types
from pathlib import Path

package = types.ModuleType("claude_bottle")  # in a bare checkout nothing else provides the package
package.__path__ = [str(Path(__file__).resolve().parent.parent)]
sys.modules["claude_bottle"] = package

from claude_bottle.cli.main import main  # noqa: E402 - needs the package

sys.exit(main(sys.argv[1], sys.argv[2:]))
