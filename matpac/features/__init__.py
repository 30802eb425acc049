"""STAGE logmel: clips of a manifest -> a store of log-mels, memory-mapped.

Read `preprocess`, then `store` (what training reads), then `build` and `shards` (what writes it).
"""
