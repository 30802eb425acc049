"""STAGE probe: a frozen encoder -> linear-probe scores on every task (MATPAC Sec. IV-A).

Read `probe`; then `embedders` and `extract` (embeddings, computed once), `splits` (folds, repeats,
validation parts), `linear` (the probes) and `metrics`.
"""
