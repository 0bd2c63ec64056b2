"""What ``cli.sh`` runs, by path: the name it was invoked by comes first, then the user's words."""

# First of all Ctrl-C, which cli.sh may have blocked, ends the program in silence: Python's own handler would show a
# traceback of an import. ``signal`` takes long to import, and ``site``, which Python was told to leave, longer.
import _signal  # type: ignore[import-not-found]

if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
_signal.pthread_sigmask(_signal.SIG_UNBLOCK, [_signal.SIGINT])

import gc  # noqa: E402
import site  # noqa: E402
import sys  # noqa: E402
import types  # noqa: E402

gc.disable()  # nothing of what is imported goes, and looking for it takes a tenth of the time until the question
if sys.flags.no_site:
    site.main()

package = types.ModuleType("claude_bottle")  # in a bare checkout nothing else provides the package
package.__path__ = [__file__.rpartition("/cli/")[0]]
sys.modules["claude_bottle"] = package

from claude_bottle.lib.host.process import standard_descriptors  # noqa: E402

standard_descriptors()

from claude_bottle.cli.main import run  # noqa: E402

run(sys.argv[1], sys.argv[2:])
