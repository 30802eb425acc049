"""Frozen encoders that are not trained here: the rows of Table II (MATPAC Sec. IV-B).

    interface   what a row is: waveforms in, embeddings out
    published   the published rows: weights, licence, reference, package
    vit         MATPAC, MATPAC++ and M2D in our own ViT
    ...         one module per other row, which imports its package when it is made

None of them is imported before it is used: their packages are optional and heavy.
"""
