"""Trains a run in a process of its own that halts at some steps, for a signal to reach it there.

Arguments: a pickled `Job`, then the steps. Where it halts it prints ``reached <step>`` and goes on
with the next line of its input. An interrupted run is started once more.
"""

import pickle
import sys
from pathlib import Path

from matpac import logs, pretrain


def main() -> None:
    job = pickle.loads(Path(sys.argv[1]).read_bytes())
    halts = [int(step) for step in sys.argv[2:]]
    logs.STEPS_BETWEEN_FLUSHES = 3
    whole_step = pretrain.Trainer.step

    def step(self: pretrain.Trainer, batch: object, step: int, *args: object, **named: object):
        measured = whole_step(self, batch, step, *args, **named)
        if step in halts:
            halts.remove(step)
            print(f"reached {step}", flush=True)
            sys.stdin.readline()
        return measured

    pretrain.Trainer.step = step
    try:
        pretrain.train(job)
    except KeyboardInterrupt as stopped:
        print(stopped, flush=True)
    pretrain.train(job)


if __name__ == "__main__":
    main()
