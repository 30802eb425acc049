"""STAGE figures: scores and logs -> Tables I, II, III, Fig. 2 and the collapse figure.

Read `figures`; then `statistics` (means and intervals), `report` and `compare` (the tables),
`paper` (what the authors report), `plots` and `collapse` (the figures).
"""
