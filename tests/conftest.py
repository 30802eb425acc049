"""Before torch is imported: waiting threads sleep, since spinning ones slow busy machines down."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
