"""Switches the profile: ``params.yaml`` is set aside under its profile's name, another takes over.

``matpac use paper`` renames ``params.yaml`` to ``params.mini.yaml`` and
``params.paper.yaml`` to ``params.yaml``; edits of either are kept. Every path of the pipeline holds
the profile, so nothing that is up to date runs again. With ``-- COMMAND ...`` behind the name it
switches for that command only.
"""

import signal
import subprocess
from pathlib import Path

from matpac.core import yaml_file
from matpac.params import load


def use(profile: str, root: Path) -> str:
    """Makes ``profile`` the active one.

    Args:
        profile: name; ``params.<profile>.yaml`` must exist below ``root`` unless it is active.
    Returns: what was done, in words.
    Raises: FileNotFoundError naming the profiles there are; ValueError if a file holds another
        profile than its name says, or setting the active one aside would overwrite a file.
    """
    active, wanted = root / "params.yaml", root / f"params.{profile}.yaml"
    current = _profile(active)
    if current == profile:
        return f"params.yaml is the profile {profile} already"
    if not wanted.exists():
        others = sorted(p.name.split(".")[1] for p in root.glob("params.*.yaml"))
        raise FileNotFoundError(
            f"{wanted}: no such profile, allowed: {', '.join([current, *others])}"
        )
    if _profile(wanted) != profile:
        raise ValueError(f"{wanted}: holds the profile {_profile(wanted)!r}, allowed: {profile!r}")
    load(wanted)
    aside = root / f"params.{current}.yaml"
    if aside.exists():
        raise ValueError(f"{aside} exists and would be overwritten; move one of the two away")
    active.rename(aside)
    wanted.rename(active)
    return f"params.yaml is now the profile {profile}; {current} is kept in {aside.name}"


def _profile(path: Path) -> str:
    """The profile that a file says it holds. Raises: OSError; ValueError."""
    sections = yaml_file.read(path)
    if not isinstance(sections, dict) or "profile" not in sections:
        raise ValueError(f"{path}: no key 'profile'")
    return str(sections["profile"])


def run_under(profile: str, command: list[str], root: Path) -> int:
    """Runs a command with ``profile`` active, then restores what was; returns its exit status."""
    before = _profile(root / "params.yaml")
    print(use(profile, root), flush=True)
    try:
        with subprocess.Popen(command, cwd=root) as child:
            # The command gets Ctrl-C from the terminal too; it may take its time to save.
            kept = {n: signal.signal(n, lambda *_: None) for n in (signal.SIGINT,)}
            kept |= {
                n: signal.signal(n, lambda number, _: child.send_signal(number))
                for n in (signal.SIGTERM, signal.SIGHUP)
            }
            try:
                return child.wait()
            finally:
                for number, handler in kept.items():
                    signal.signal(number, handler)
    finally:
        print(use(before, root), flush=True)
