"""Which files stand behind the encoders that are only probed: whether to probe them again."""

from matpac.core import files, paths
from matpac.core.fingerprints import source_digest
from matpac.probing.config import EncoderConfig, ProbeParams


def write_weights(params: ProbeParams) -> None:
    """Writes ``weights.json`` if anything in it is new: `files_of` each encoder, None for none."""
    path = paths.small(params) / "weights.json"
    found = {name: files_of(encoder) or None for name, encoder in params.encoders.items()}
    if not path.exists() or files.read_json(path) != found:
        files.write_json(path, found)


def files_of(encoder: EncoderConfig) -> dict[str, str]:
    """Checksums of the user's files behind an encoder: weights, and a module's source.

    A file that is not there is the probe stage's to tell.
    """
    found = {}
    if encoder.weights and (path := paths.expand(encoder.weights)).exists():
        found["weights"] = files.sha256_of_all(path)
    if encoder.module:
        found["module"] = source_digest(encoder.module.partition(":")[0], paths.root())
    return found
