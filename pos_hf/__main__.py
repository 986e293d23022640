"""`python -m pos_hf COMMAND ...` is `pos-hf COMMAND ...`; what a launcher starts as a module."""

import sys

from pos_hf.cli.main import main

sys.exit(main())
