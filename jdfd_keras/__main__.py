"""Lets `python -m jdfd_keras` stand for `jdfd-keras`."""

import sys

from jdfd_keras.cli.main import main

sys.exit(main())
