"""What the ``figures`` stage reads of ``params.yaml``: all of it, but no section of its own."""

from matpac.data.config import FetchParams
from matpac.probing.config import ProbeParams


class FiguresParams(ProbeParams, FetchParams):
    """Sections of the ``figures`` stage."""
