"""Benchmarks: ``python -m matpac.bench`` runs those that this machine can run (``make bench``).

    measure   the machine, works timed in turns, matrix products
    step      PART a training step on two CPU threads
    logmel    PART audio files -> stored log-mels
    loader    PART crops from the store against one file per clip
    gpu       PART training steps on a GPU, the loader running
    tables    results -> the table of README.md and docs/performance.md

Beside them, `matpac.bench.probe` times the linear probes.
"""
