"""Which files stand behind the encoders that are only probed: whether to probe them again."""

from matpac.core import files, paths
from matpac.core.fingerprints import source_digest
from matpac.probing.config import EncoderConfig, ProbeParams


def weights(params: ProbeParams) -> dict[str, dict[str, str] | None]:
    """Checksums of the user's files behind each encoder: weights, and a module's source.

    None for an encoder without such files; a file that is not there is the probe stage's to tell.
    """
    return {name: _files_of(encoder) or None for name, encoder in params.encoders.items()}


def _files_of(encoder: EncoderConfig) -> dict[str, str]:
    found = {}
    if encoder.weights and (path := paths.expand(encoder.weights)).exists():
        found["weights"] = files.sha256_of_all(path)
    if encoder.module:
        found["module"] = source_digest(encoder.module.partition(":")[0], paths.root())
    return found


def write_weights(params: ProbeParams) -> None:
    """Writes ``weights.json`` if anything in it is new."""
    path = paths.small(params) / "weights.json"
    found = weights(params)
    if not path.exists() or files.read_json(path) != found:
        files.write_json(path, found)
