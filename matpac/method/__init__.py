"""Sec. III of the paper: masked latent prediction and classification.

In: log-mels (B, F, T). Out: predictions and targets of the masked patches, and two losses. Read in
the order of the data: `masking`, `patches`, `encoder`, `predictor`, `heads` (Eqs. (2), (3)),
`student`, `teacher`, `losses` (Eqs. (1), (4), (5)). Two options are of other papers: MATPAC++'s
several hypotheses and M2D's standardised targets. `Linear` is torch's, faster on some processors
(`matpac.core.products`).
"""
