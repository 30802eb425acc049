"""MATPAC: masked latent prediction and classification for audio, the paper as a library.

In reading order; a module imports only from modules above it (a test holds it to that):

    progress      a bar, lines or silence for long work
    provenance    which source files decide a result
    values        what a section of params.yaml is made of
    dataset_sections  what a data set of params.yaml may be
    probe_sections    what is probed, and how
    sections      the sections of params.yaml as typed objects
    checks        what is wrong with parameters, all of it
    config        reads and validates params.yaml; overlays of runs; where things lie
    profiles      switches between params.yaml and another profile
    minutes       how long each stage took
    interruption  Ctrl-C and SIGTERM: when work ends, and with which exit code
    distributed   several processes or one; the only importer of torch.distributed
    files         files that appear complete or not at all
    containers    audio inside tars and parquet files
    listings      what lies in a tar or parquet file
    sources       what lies in the folders of audio: whether to fetch again
    catalogue     where the data sets come from: addresses, checksums, licences
    transfer      one file over HTTP, however often it is cut
    splitzip      zip archives in several files
    archives      unpacks what strangers packed
    shelf         the downloaded files of a data set, checked
    download      a data set, from its hosts, a mirror or the user
    tables        CSV tables of folders of audio
    cluster       workers of a Dask cluster
    workers       threads, processes or a cluster for preparing data
    corpus        the embedded corpus: sampled instruments, synthesised environments, seven tasks
    mp3           how many samples the frames of an MP3 hold
    audio         reads audio files, and says what is wrong with one
    datasets      manifests: one row per clip, with its split or fold and labels
    audit         which files of a data set can be used
    labels        labels, splits and folds from the columns of a CSV
    folders       folders of audio, with a CSV or without -> manifest
    packed        containers of audio -> manifest
    loaders       what the tables of Table I's data sets say, one module each
    official      a data set of Table I in its official layout -> manifest
    fetch         STAGE fetch: audio and manifests of every data set
    products      float32 matrix products on a CPU
    logmel        waveform (B, S) -> log-mel (B, F, T); normalisation
    clips         stored log-mels, memory-mapped
    shards        one file of a store
    stores        a data set's store, built by several processes
    preprocess    STAGE logmel: stores, and the constants of the pretraining corpora
    masking       N patches -> V visible + M masked
    patches       log-mel (B, F, T) -> tokens (B, 1 + N, D) with 2-D positions
    encoder       ViT blocks
    predictor     visible latents -> latents of the masked patches
    heads         latents -> K prototypes; centering and sharpening
    losses        Eqs. (1), (4), (5)
    model         the student: all of the above wired
    teacher       EMA of encoder and head: targets
    schedules     learning rate, decays, temperature: functions of the step
    flops         what an update computes per clip, counted
    memory        how large the networks are, and what training them holds
    frozen        the frozen encoder and its folder
    embeddings    embeddings of stored clips, many at once
    waves         audio of any kind -> pieces of a waveform
    statedicts    published weights, read without executing anything in them
    released      state dicts in the released code's names
    encoders      the rows of Table II, and the user's own: waveforms in, embeddings out
    hub           load one, from a folder, the Hugging Face Hub or by a published name
    embed         a folder of audio as a table of embeddings
    hear          the HEAR 2021 API
    diagnostics   is it collapsing?
    alarm         when a run has collapsed
    batches       which crops and masks an update sees
    trainer       one update: targets, predictions, losses, optimiser, EMAs
    failures      why an update was not finite
    states        a training state as a file
    checkpoint    the training states of a run, which survive
    logs          what a run logs
    watch         is a run still worth going on with?
    job           one training run: what it opens before and writes after
    throughput    how many clips a second: measured, remembered, told
    pretrain      STAGE pretrain: the loop
    budget        what every run takes, and the disk for all of them
    cost          what the paper costs, as tables
    plan          what would run now, and how long
    embedders     an encoder on all clips of a data set
    extract       embeddings of a whole data set, computed once and kept
    metrics       accuracy and macro mAP
    problems      folds, repeats and validation parts of a task
    stacked       linear layers side by side
    fitting       one stack of linear probes trained
    linear        linear probes, many at once
    probe         STAGE probe: scores of an encoder on every task
    probe_study   what learning rate, standardisation and epochs do to the probes
    statistics    means and confidence intervals
    paper         the values that the paper reports
    typeset       a table as Markdown, LaTeX and CSV
    captions      who is in a table, and what is said beneath it
    compare       Table II: measured rows against the paper's reported ones
    report        Tables I, II, III
    plots         Fig. 2
    collapse      the story of the diagnostics over runs
    looking       pictures and sounds for notebooks
    figures       STAGE figures: all tables and figures of a profile
    model_card    what a run is, from its files, as a page for the Hub
    export        an encoder as a torch.export program
    release       an encoder of ours with its model card
    bench         benchmarks: a training step, log-mels, the loader, a GPU
"""

from importlib import import_module

_HOME = {
    "load": "hub",
    "Pretrained": "hub",
    "AudioEncoder": "frozen",
    "load_encoder": "frozen",
    "LogMel": "logmel",
    "Student": "model",
    "Teacher": "teacher",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    """Public names are imported when first used: worker processes start without torch."""
    if name in _HOME:
        return getattr(import_module(f"matpac.{_HOME[name]}"), name)
    raise AttributeError(f"module 'matpac' has no attribute {name!r}")
