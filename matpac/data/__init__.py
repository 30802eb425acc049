"""STAGE fetch: data sets as they are shipped -> one manifest each, a row per clip.

In: `config`'s sections and the user's folders, or downloads. Out: manifests with splits, folds and
labels. Read `fetch`, then `manifests`; then by source: `folders`, `packed`, `official` with
`layouts`; what downloads and unpacks comes last: `catalogue`, `download`, `transfer`, `archives`,
`members`.
"""
