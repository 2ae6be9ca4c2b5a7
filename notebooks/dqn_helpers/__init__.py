"""Helpers of the lesson: what only draws, plays, formats, checks and saves.

They import neither torch nor gym nor anything of the lesson; what they need of a run,
a network or an environment is handed to them. To be imported they need the standard
library and IPython alone.
"""

import contextlib
import io
import sys
import warnings

if sys.version_info < (3, 10):  # noqa: UP036, a kernel may be older
    raise RuntimeError("Python 3.10 or newer is needed: choose another kernel.")


@contextlib.contextmanager
def without_notices():
    """Drop what an import writes to stderr, and gym's warnings from then on."""
    warnings.filterwarnings("ignore", module="gym")
    with contextlib.redirect_stderr(io.StringIO()):
        yield
