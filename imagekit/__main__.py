"""`python -m imagekit` is the command line."""

import sys

from imagekit.cli import main

sys.exit(main())
