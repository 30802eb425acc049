"""Sec. III of the paper, and nothing else: masked latent prediction and classification.

In: log-mels (B, F, T). Out: predictions and targets of the masked patches, and two losses. Read in
the order of the data: `masking`, `patches`, `encoder`, `predictor`, `heads` (Eqs. (2), (3)),
`student`, `teacher`, `losses` (Eqs. (1), (4), (5)), `schedules`.
"""
