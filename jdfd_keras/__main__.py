"""Run the command line with `python -m jdfd_keras`."""

import sys

from jdfd_keras.cli.main import main

sys.exit(main())
