"""Files of audio in, log-mels out (MATPAC Sec. IV-A): the front end.

`reading` opens files and says what is wrong with them; `containers` and `listings` find audio
inside tars and parquet; `logmel` turns waveforms (B, S) into log-mels (B, F, T); `chunking` cuts
audio of any length into pieces. Read `logmel` first.
"""
