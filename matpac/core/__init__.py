"""What every stage stands on and no stage is about; nothing here decides more of a result than
last digits.

`files` that appear whole or not, `paths` of the project, the base of all `section` classes,
`progress`, `fingerprints` of values and code, `parallel` work on cores and clusters, `distributed`
processes of one training, `signals`, and float32 `products` on a CPU.
"""
