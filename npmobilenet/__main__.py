"""`python -m npmobilenet`: the command line."""

import sys

from npmobilenet.cli import main

if __name__ == "__main__":
    sys.exit(main())
