"""`python -m mdmmt` is the command `mdmmt`."""

import sys

from .cli import main

sys.exit(main())
