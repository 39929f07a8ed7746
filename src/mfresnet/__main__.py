"""`python -m mfresnet` is the command `mfresnet`."""

from .cli import main

raise SystemExit(main())
