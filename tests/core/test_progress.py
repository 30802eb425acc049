"""Progress in its three modes."""

from types import SimpleNamespace

import pytest

from matpac.core import progress
from matpac.core.progress import Progress, mode, track


def show(monkeypatch: pytest.MonkeyPatch, chosen: str, *, between: float = 0.0) -> None:
    monkeypatch.setenv("MATPAC_PROGRESS", chosen)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", between)


def work(**options: object) -> None:
    with Progress(4, "work", unit="step", **options) as shown:
        for number in range(2):
            shown.update(note=f"loss {number}")


def test_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MATPAC_PROGRESS", raising=False)
    assert mode() == "bar"
    for chosen in progress.MODES:
        monkeypatch.setenv("MATPAC_PROGRESS", chosen)
        assert mode() == chosen
    monkeypatch.setenv("MATPAC_PROGRESS", "loud")
    with pytest.raises(ValueError, match="got 'loud', allowed: bar, lines, silent"):
        Progress(1, "work")


@pytest.mark.parametrize("chosen", progress.MODES)
def test_silence_and_other_ranks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, chosen: str
) -> None:
    show(monkeypatch, chosen)
    work(enabled=chosen == "silent")
    assert capsys.readouterr() == ("", "")


def test_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    show(monkeypatch, "lines")
    work()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3  # two updates and the end
    assert lines[0].startswith("work:  25%") and "1/4" in lines[0] and "loss 0" in lines[0]
    assert lines[2].startswith("work:  50%") and "2/4" in lines[2] and "loss 1" in lines[2]
    assert not any("\r" in line for line in lines)


def test_lines_come_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    show(monkeypatch, "lines", between=1000.0)
    work()
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert list(track(iter("abc"), 3, "letters")) == ["a", "b", "c"]
    assert "letters: 100%" in capsys.readouterr().out


def test_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    show(monkeypatch, "bar")
    # The console's bar, whatever the widgets of a notebook would be.
    monkeypatch.setattr(progress, "tqdm", progress.console_tqdm)
    work()
    out, err = capsys.readouterr()
    assert out == "" and "2/4" in err and "loss 1" in err
    with Progress(10, "resumed", initial=6) as shown:
        shown.update(3)
    assert "9/10" in capsys.readouterr().err


def test_resumed_units_are_done_but_not_in_the_rate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    show(monkeypatch, "lines")
    seconds = 50.0
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: seconds))
    with Progress(1000, "work", unit="clip", initial=600) as shown:
        seconds += 10
        shown.update(200)
    assert "80%|800/1000 [00:10<00:10, 20.00clip/s]" in capsys.readouterr().out


def test_bytes_are_shown_by_thousands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    show(monkeypatch, "lines", between=0.0)
    with Progress(2_500_000, "file", unit="B", initial=400_000) as shown:
        shown.update(599_500)
        assert "40%|1.00M/2.50M [" in capsys.readouterr().out
        shown.update(1_500_500)
    assert shown.done == 2_500_000 and "100%|2.50M/2.50M [" in capsys.readouterr().out
