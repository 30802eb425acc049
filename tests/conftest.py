"""Before torch is imported: no GPU, since tests compare bits, and threads that do not spin.

Tests marked ``gpu`` run when MATPAC_TEST_GPU is set.
"""

import os

if not os.environ.get("MATPAC_TEST_GPU"):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
