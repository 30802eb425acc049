"""The data sets of Table I in miniature: their exact layouts on disk, in real file formats.

Every function writes one below a folder, in a folder of the official name, and returns the folder
that a user would name. What a clip sounds like follows from its label: a tone per class.
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from matpac.data.layouts import mtt as official_mtt
from matpac.data.layouts import nsynth as official_nsynth
from matpac.data.layouts import openmic as official_openmic


def tone(
    path: Path,
    hz: Sequence[float],
    *,
    rate: int = 16000,
    channels: int = 1,
    duration_s: float = 0.5,
    **written: str,
) -> None:
    """A sum of sines in faint noise; ``written`` goes to `soundfile.write`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seconds = np.arange(round(rate * duration_s)) / rate
    wave = np.random.default_rng(len(path.name)).normal(0, 0.003, len(seconds))
    wave += sum(0.2 * np.sin(2 * np.pi * each * seconds) for each in hz)
    soundfile.write(path, np.stack([wave] * channels, axis=1), rate, **written)


def rows(path: Path, lines: Sequence[Sequence[object]], **dialect: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n", **dialect).writerows(lines)


OPENMIC = {  # key -> split and likelihoods of the instruments that were asked for
    "000046_3840": ("train", {"guitar": 0.9, "voice": 0.1}),
    "000135_483840": ("train", {"guitar": 0.5, "flute": 0.49999}),
    "000139_119040": ("train", {"voice": 1.0}),
    "000141_153600": ("train", {"voice": 0.75, "guitar": 0.25}),
    "001002_0": ("train", {"guitar": 1.0, "voice": 0.0}),
    "001003_0": ("train", {"voice": 0.8, "guitar": 0.0}),
    "071826_215040": ("test", {"guitar": 1.0, "voice": 0.2}),
    "155294_184320": ("test", {"voice": 0.6, "guitar": 0.4, "violin": 0.3}),
}


def openmic(folder: Path) -> Path:
    root = folder / "openmic-2018"
    classes = official_openmic.CLASSES
    root.mkdir(parents=True)
    (root / "class-map.json").write_text(json.dumps({c: i for i, c in enumerate(classes)}))
    for split in ("train", "test"):
        keys = [[key] for key, (part, _) in OPENMIC.items() if part == split]
        rows(root / "partitions" / f"split01_{split}.csv", keys)
    answers = [
        [key, name, likelihood, 3]
        for key, (_, asked) in sorted(OPENMIC.items())
        for name, likelihood in asked.items()
    ]
    header = ["sample_key", "instrument", "relevance", "num_responses"]
    rows(root / official_openmic.TABLE, [header, *answers])
    truth = np.full((len(OPENMIC), len(classes)), 0.5)
    mask = np.zeros(truth.shape, dtype=bool)
    for row, key in enumerate(sorted(OPENMIC)):
        for name, likelihood in OPENMIC[key][1].items():
            truth[row, classes.index(name)] = likelihood
            mask[row, classes.index(name)] = True
    keys = np.array(sorted(OPENMIC), dtype=object)  # as the authors' script leaves them
    features = np.zeros((len(keys), 10, 128), dtype=int)
    np.savez(root / "openmic-2018.npz", X=features, Y_true=truth, Y_mask=mask, sample_key=keys)
    for key, (_, asked) in OPENMIC.items():
        hz = [300 + 150 * classes.index(name) for name, heard in asked.items() if heard >= 0.5]
        path = root / "audio" / key[:3] / f"{key}.ogg"
        tone(path, hz, rate=44100, channels=2, format="OGG", subtype="VORBIS")
    return folder


NSYNTH = {  # split -> family -> its instruments
    "train": {"bass": (1, 2), "guitar": (3, 4), "synth_lead": (5,)},
    "valid": {"bass": (900,), "guitar": (901,)},
    "test": {"bass": (900,), "guitar": (901,)},
}


def nsynth(folder: Path) -> Path:
    for split, families in NSYNTH.items():
        notes, root = {}, folder / f"nsynth-{split}"
        # In training two pitches of each instrument, elsewhere one, all different.
        pitches = {"train": (40, 52), "valid": (45,), "test": (50,)}[split]
        for family, instruments in families.items():
            number = official_nsynth.CLASSES.index(family)
            for instrument in instruments:
                for pitch in pitches:
                    name = f"{family}_acoustic_{instrument:03d}-{pitch:03d}-075"
                    tone(root / "audio" / f"{name}.wav", [200 + 300 * number], subtype="PCM_16")
                    notes[name] = {
                        "note_str": name,
                        "instrument": instrument,
                        "instrument_family": number,
                        "instrument_family_str": family,
                        "pitch": pitch,
                        "qualities_str": [],
                    }
        (root / "examples.json").write_text(json.dumps(notes, indent=4))
    return folder


GTZAN = {  # tracks of the filtered lists, and one that is in none
    "train": ("blues.00029", "blues.00030", "jazz.00054", "jazz.00000", "rock.00000"),
    "valid": ("blues.00000", "jazz.00002", "rock.00038"),
    "test": ("blues.00012", "jazz.00073", "rock.00010"),
    "": ("jazz.00033",),
}


def gtzan(folder: Path, *, name: str = "genres") -> Path:
    for track in (track for part in GTZAN.values() for track in part):
        genre = track.split(".")[0]
        hz = {"blues": 300, "jazz": 900, "rock": 2000}[genre]
        tone(folder / name / genre / f"{track}.wav", [hz], rate=22050, subtype="PCM_16")
    (folder / name / "jazz" / "jazz.00054.wav").write_bytes(b"\x01\x02" * 500)  # as on Kaggle
    (folder / name / "blues" / "._blues.00029.wav").write_bytes(b"of a file manager")
    return folder


MTT = {  # clip -> path and tags; "rare tag" is none of the fifty
    "2": ("f/american_bach_soloists-j_s__bach_cantatas-01-bwv54-30-59.mp3", ["classical"]),
    "29": ("d/seismic_anamoly-dead_man_s_hand-01-foo-88-117.mp3", ["rock", "rare tag"]),
    "35644": ("6/norine_braun-now_and_zen-08-gently-117-146.mp3", ["rock"]),
    "55753": ("8/jacob_heringman-josquin_des_prez_lute-19-pater_noster-204-233.mp3", []),
    "57881": ("9/american_baroque-dances-25-le_petit_rien_couperin-88-117.mp3", []),
    "10": ("0/some_band-some_record-01-some_song-0-29.mp3", ["rock"]),
    "11": ("0/some_band-some_record-01-some_song-29-58.mp3", ["rock", "guitar"]),
    "12": ("b/an_orchestra-a_record-02-a_piece-0-29.mp3", ["classical", "no vocal"]),
    "13": ("a/an_orchestra-a_record-03-a_piece-0-29.mp3", ["classical"]),
    "20": ("c/another-a_record-01-a_song-0-29.mp3", ["rock"]),
    "21": ("c/another-a_record-02-a_song-0-29.mp3", ["classical"]),
    "22": ("c/another-a_record-03-a_song-0-29.mp3", ["rare tag"]),
    "30": ("e/yet_another-a_record-01-a_song-0-29.mp3", []),
}
RARE_TAGS = ["rare tag", *(f"tag {i}" for i in range(137))]


def mtt(folder: Path) -> Path:
    tags = sorted([*official_mtt.CLASSES, *RARE_TAGS])
    lines = [
        [clip, *(int(tag in given) for tag in tags), path] for clip, (path, given) in MTT.items()
    ]
    header = ["clip_id", *tags, "mp3_path"]
    rows(folder / "annotations_final.csv", [header, *lines], delimiter="\t", quoting=csv.QUOTE_ALL)
    for clip, (path, given) in MTT.items():
        hz = [{"classical": 400, "rock": 1500}.get(tag, 3000) for tag in given]
        if clip == "35644":
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).touch()  # the other two broken ones are not there at all
        elif clip not in official_mtt.BROKEN:
            tone(folder / path, hz, format="MP3", subtype="MPEG_LAYER_III")
    return folder


FSD50K = {  # name -> split and labels, ancestors included
    "64760": ("train", ["Bark", "Dog"]),
    "16399": ("train", ["Rain"]),
    "100032": ("train", ["Bark", "Dog", "Rain"]),
    "00123": ("train", ["Rain"]),
    "16401": ("val", ["Dog"]),
    "16402": ("val", ["Rain"]),
    "37199": ("eval", ["Bark", "Dog"]),
    "175151": ("eval", ["Rain"]),
}


def fsd50k(folder: Path, *, nested: bool = True) -> Path:
    """``nested``: the folder of evaluation clips and that of the tables have one more inside."""
    names = ["Accelerating_and_revving_and_vroom", "Bark", "Dog", "Rain"]
    names += [f"Zz_{i}" for i in range(196)]
    inner = {
        part: folder
        / f"FSD50K.{part}"
        / (f"FSD50K.{part}" if nested and part != "dev_audio" else "")
        for part in ("dev_audio", "eval_audio", "ground_truth")
    }
    truth = inner["ground_truth"]
    vocabulary = [[i, name, f"/m/0{i}"] for i, name in enumerate(names)]
    rows(truth / "vocabulary.csv", vocabulary)
    mids = {name: mid for _, name, mid in vocabulary}
    joined = {
        name: [name, ",".join(labels), ",".join(mids[label] for label in labels)]
        for name, (_, labels) in FSD50K.items()
    }
    dev = [[*joined[n], part] for n, (part, _) in FSD50K.items() if part != "eval"]
    rows(truth / "dev.csv", [["fname", "labels", "mids", "split"], *dev])
    evaluation = [joined[n] for n, (part, _) in FSD50K.items() if part == "eval"]
    rows(truth / "eval.csv", [["fname", "labels", "mids"], *evaluation])
    for number, (name, (part, labels)) in enumerate(FSD50K.items()):
        audio = inner["eval_audio" if part == "eval" else "dev_audio"]
        hz = [{"Bark": 500, "Dog": 1200, "Rain": 4000}[label] for label in labels]
        duration_s = 0.3 + 0.1 * number
        tone(audio / f"{name}.wav", hz, rate=44100, duration_s=duration_s, subtype="PCM_16")
    return folder


ESC50 = {"dog": (0, True), "airplane": (47, False), "rain": (10, True)}
"""Category -> target and whether it is one of ESC-10."""


def esc50(folder: Path) -> Path:
    """Two categories of ESC-10 and one other; each recording gives two clips."""
    root, lines = folder / "ESC-50-master", []
    for category, (target, esc10) in ESC50.items():
        for fold in range(1, 6):
            for clip in range(2):
                recording = 1000 * target + 10 * fold
                take = "AB"[clip]
                name = f"{fold}-{recording}-{take}-{target}.wav"
                lines.append([name, fold, target, category, esc10, recording, take])
                tone(root / "audio" / name, [300 + 60 * target], rate=44100, subtype="PCM_16")
    header = ["filename", "fold", "target", "category", "esc10", "src_file", "take"]
    rows(root / "meta" / "esc50.csv", [header, *sorted(lines, reverse=True)])
    return folder


US8K_FORMATS = [
    {"subtype": "PCM_16", "rate": 44100, "channels": 2},
    {"subtype": "PCM_24", "rate": 48000, "channels": 1},
    {"subtype": "PCM_U8", "rate": 11025, "channels": 1},
    {"subtype": "FLOAT", "rate": 96000, "channels": 2},
    {"subtype": "MS_ADPCM", "rate": 22050, "channels": 1},
    {"subtype": "IMA_ADPCM", "rate": 8000, "channels": 1},
]
US8K = {0: "air_conditioner", 3: "dog_bark", 8: "siren"}


def us8k(folder: Path) -> Path:
    root, lines = folder / "UrbanSound8K", []
    for fold in range(1, 11):
        for class_id, name in US8K.items():
            for take in range(2):  # slices of one recording
                recording = 100000 + 100 * fold + class_id
                file = f"{recording}-{class_id}-0-{take}.wav"
                written = US8K_FORMATS[(fold + class_id + take) % len(US8K_FORMATS)]
                duration_s = 0.06 if take else 0.8
                hz = [400 + 250 * class_id]
                tone(root / "audio" / f"fold{fold}" / file, hz, duration_s=duration_s, **written)
                lines.append([file, recording, 0.0, duration_s, 1, fold, class_id, name])
    header = ["slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class"]
    rows(root / "metadata" / "UrbanSound8K.csv", [header, *lines])
    return folder
