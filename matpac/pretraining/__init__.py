"""STAGE pretrain: a store of log-mels -> a frozen encoder, and the logs of its training.

Read `trainer` (one update) and `pretrain` (the loop); then `batches` (which clips an update sees),
`plan`, `diagnostics` with `alarm` and `monitor`, `checkpoint` with `states`, `logs`.
"""
