"""`python -m gateway.cli`: the `postern` command from a source tree."""

import sys

from gateway.cli.main import main

sys.exit(main())
