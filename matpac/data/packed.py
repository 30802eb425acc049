"""Containers of audio (`matpac.audio.containers`) become a manifest: an unlabelled clip per member.

Their members are listed by one scan each, kept under the container's size and time of change; the
members themselves are then checked like files.
"""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from matpac.audio import finding, listings
from matpac.core import files
from matpac.core.parallel import Workers
from matpac.core.progress import Progress
from matpac.data import manifests
from matpac.data.audit import add_facts, size_and_time

VERSION = 1
"""Raise when `listings.scan` finds other things, so that all containers are scanned again."""
CLIP_BYTES = 300_000
"""About as many has a clip of 10 s; to guess how long a scan will take."""
SECONDS_BETWEEN_SAVES = 60.0
COLUMNS = {"shard": str, "size": int, "changed": int, "problem": str}
COLUMNS |= {"name": str, "first": int, "second": int}
"""Of the listing: a row per member, with the state and the problems of its container."""


def packed_manifest(
    name: str,
    *,
    shards: Sequence[Path],
    relative_to: Path,
    max_bad_fraction: float,
    cache: Path,
    workers: Workers,
    window_ms: float = 25,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Every audio file in containers, in their order, unlabelled: a pretraining corpus.

    Two members of one name and the same bytes are one clip. A container that is damaged is a row
    of its own, excluded, so that it is named and counted with the clips.

    Args:
        shards: the containers.
        relative_to: a folder above all of them; the manifest's paths start there.
        max_bad_fraction: largest fraction of the containers that may give no clip at all.
        cache, workers, window_ms: as in `folders.folder_manifest`.
    Returns: manifest and information as in `matpac.data.manifests`, without "audio".
    Raises: ValueError if there is no container, or too many of them cannot be read.
    """
    places = sorted({path.relative_to(relative_to).as_posix() for path in shards})
    if not places:
        raise ValueError(f"{name}: no shards, needed: {', '.join(finding.CONTAINERS)} files")
    members, lost = list_members(places, relative_to, cache=cache, workers=workers, name=name)
    unread = sorted(set(places) - set(members["shard"]))
    if not len(members) or len(unread) > max_bad_fraction * len(places):
        reasons = [(shard, lost[shard]) for shard in unread]
        raise ValueError(
            f"{name}: {len(unread)} of {len(places)} shards cannot be used, allowed: "
            f"logmel.max_bad_fraction {max_bad_fraction:g}\n{manifests.describe(reasons)}"
        )
    paths = _paths(members)
    manifest = pd.DataFrame({"clip": _clips(members, paths), "path": paths})
    add_facts(manifest, relative_to, window_ms=window_ms, cache=cache, workers=workers, name=name)
    twins = _exclude_copies(manifest, members["name"])
    manifest = pd.concat([_rows_of(lost), manifest], ignore_index=True)
    manifest["split"], manifest["fold"], manifest["group"] = "", 0, manifest["clip"]
    info = manifests.information(name, "packed")
    return manifest, info | {"shards": len(places), "names_of_several_clips": twins}


def list_members(
    shards: Sequence[str], folder: Path, *, cache: Path, workers: Workers, name: str
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Scans the containers that are new or have changed.

    Args:
        shards: relative to ``folder``.
        cache: folder for the findings. A container that gives nothing is tried again each time.
        name: of the data set, for the progress display.
    Returns: a row per member (`COLUMNS`), and what is wrong with which container.
    """
    place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
    cache_path = cache / f"members-v{VERSION}-{place}.parquet"
    empty = pd.DataFrame({column: pd.Series(dtype=kind) for column, kind in COLUMNS.items()})
    known = pd.read_parquet(cache_path) if cache_path.exists() else empty
    states = pd.DataFrame([(shard, *size_and_time(folder / shard)) for shard in shards])
    states.columns = list(COLUMNS)[:3]
    known = known.merge(states, on=list(states.columns))
    new = states[~states["shard"].isin(known["shard"].unique())]
    tables, lost, saved = [known], {}, time.monotonic()
    jobs = (folder / shard for shard in new["shard"])
    with Progress(len(new), f"list {name}", unit="shard") as progress:
        found = workers.map(listings.scan, jobs, num_items=int(new["size"].sum()) // CLIP_BYTES)
        for state, listing in zip(new.itertuples(index=False), found, strict=True):
            if listing.members:
                table = pd.DataFrame(listing.members, columns=["name", "first", "second"])
                tables.append(table.assign(**state._asdict(), problem=listing.problem))
            else:
                lost[state.shard] = listing.problem
            progress.update()
            if time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                tables, saved = [_save(tables, cache_path)], time.monotonic()
    members = _save(tables, cache_path) if len(new) else known
    damaged = members[members["problem"] != ""].drop_duplicates("shard")
    lost |= dict(zip(damaged["shard"], damaged["problem"], strict=True))
    members = members.sort_values(["shard", "first", "second"], ignore_index=True)
    return members, dict(sorted(lost.items()))


def _save(tables: list[pd.DataFrame], path: Path) -> pd.DataFrame:
    members = pd.concat(tables, ignore_index=True)
    files.write_table(path, members)
    return members


def _paths(members: pd.DataFrame) -> pd.Series:
    """As `containers.member` reads them."""
    place = members["first"].astype(str) + "+" + members["second"].astype(str)
    return members["shard"] + "::" + place


def _clips(members: pd.DataFrame, paths: pd.Series) -> pd.Series:
    """Container and name; of nameless and repeated members the place, too."""
    clips = members["shard"] + "/" + members["name"].str.replace(r"^(\.?/)+", "", regex=True)
    clips = clips.where(members["name"] != "", paths)
    again = clips.duplicated(keep=False) & (members["name"] != "")
    places = paths[again].str.rpartition("::")[2] if again.any() else ""
    clips[again] += " (" + places + ")"
    return clips


def _exclude_copies(manifest: pd.DataFrame, names: pd.Series) -> int:
    """Excludes clips with the name and the bytes of an earlier one.

    Names are compared without folder and extension. In many collections they are numbers that
    start anew in each container, so a name alone decides nothing.

    Returns: how many names are left that several clips have.
    """
    keys = names.str.replace(r"^.*/|\.[^./]*$", "", regex=True)
    usable = (manifest["excluded"] == "") & (keys != "")
    found = pd.DataFrame({"key": keys, "sha256": manifest["sha256"], "clip": manifest["clip"]})
    found = found[usable]
    copies = found[found.duplicated(["key", "sha256"])]
    firsts = found.drop(copies.index)
    if len(copies):
        originals = copies.merge(firsts, on=["key", "sha256"], how="left", suffixes=("", "_first"))
        reasons = ("duplicate: name and content of " + originals["clip_first"]).to_numpy()
        manifest.loc[copies.index, "excluded"] = reasons
    return int((firsts["key"].value_counts() > 1).sum())


def _rows_of(lost: dict[str, str]) -> pd.DataFrame:
    columns = {"clip": list(lost), "path": list(lost), "start_s": 0.0, "duration_s": 0.0}
    columns |= {"sha256": "", "excluded": list(lost.values())}
    return pd.DataFrame(columns).astype({"clip": str, "path": str, "excluded": str})
