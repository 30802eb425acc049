"""STAGE figures: scores and logs -> Tables I, II, III, Fig. 2 and the collapse figure.

Read `figures`; then `statistics` (means and intervals), `comparisons` (is one row better than
another?), `paper` (what the authors report), `results`, `tables` and `differences` (the tables),
`table` (how one is set), `plots` and `collapse` (the figures). docs/tables.md says what the numbers
mean.
"""
