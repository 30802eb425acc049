"""MATPAC: masked latent prediction and classification for audio, the paper as a library.

The pipeline, in the order of the data; a package imports only from those above it:

    core         files, paths, sections, progress: what everything stands on
    audio        reading audio, log-mels
    corpus       the embedded corpus: sampled instruments, synthesised environments, seven tasks
    data         STAGE fetch: data sets -> manifests
    features     STAGE logmel: manifests -> stores of log-mels
    method       Sec. III: masking, student, teacher, losses
    encoders     frozen encoders: ours, published ones, the user's
    pretraining  STAGE pretrain: stores -> an encoder
    probing      STAGE probe: encoders -> scores
    reporting    STAGE figures: scores -> the paper's tables and figures
    params       ``params.yaml`` as a whole
    cli          the command ``matpac``
    hear         the HEAR 2021 API
"""

from importlib import import_module

_HOME = {
    "load": "encoders.hub",
    "Pretrained": "encoders.hub",
    "AudioEncoder": "encoders.frozen",
    "load_encoder": "encoders.frozen",
    "LogMel": "audio.logmel",
    "Student": "method.student",
    "Teacher": "method.teacher",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    """Public names are imported when first used: worker processes start without torch."""
    if name in _HOME:
        return getattr(import_module(f"matpac.{_HOME[name]}"), name)
    raise AttributeError(f"module 'matpac' has no attribute {name!r}")
