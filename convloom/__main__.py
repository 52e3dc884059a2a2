"""`python -m convloom` is the command line."""

import sys

from .start import main

if __name__ == "__main__":
    sys.exit(main())
