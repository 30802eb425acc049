"""STAGE pretrain: a store of log-mels -> a frozen encoder, and the logs of its training.

Read `trainer` (one update), `loop` (all of them) and `pretrain` (the stage: a run's seeds, in turn
or `side_by_side`); then `batches` (which clips an update sees), `schedules` (its rate, decays and
temperatures), `diagnostics` with `alarm` and `monitor`, `checkpoint` with `states` (what makes a
state another run's), `logs`.
"""
