"""`python -m odibi_async` is `odibi-async`."""

import sys

from odibi_async.cli import main

if __name__ == "__main__":
    sys.exit(main())
