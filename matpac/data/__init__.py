"""STAGE fetch: data sets as they are shipped -> one manifest each, a row per clip.

In: `config`'s sections and the user's folders, or downloads. Out: manifests with splits, folds and
labels. Read `fetch`, then `manifests` and `audit` (which files cannot be read, and why); then by
source: `folders`, `packed`, `official` with `layouts` (a module per data set of Table I, with its
splits); what downloads and unpacks comes last: `catalogue`, `download`, `transfer`, `archives`,
`members`.
"""
