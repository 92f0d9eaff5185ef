"""How well and how fast reals are told from bogus: the paper's rows, label noise, peers, speed.

All on a simulated survey whose truth is known: embedded stars to learn from, stars seen through
the true point-spread function of their place to test on. Every arm sees the same, noisy, labels,
also where weights are chosen; splits share no object and no exposure. Intervals: 95 %, bootstrap
by object and, where there are several trainings, by training.

* speed: the deep network's engine against its own layers in a plain float32 loop (batch 256), one
  thread of processor time each, on the same stamps; the cascade on a survey on disk, wall time.
* table: the eleven rows of Takahashi et al. 2022, scaled to ``--scale``. One draw of wrong labels
  and one first stage, then ``--seeds`` trainings of each row. Up to the scale "laptop" each of
  them scores all reals and its own share of the bogus, so that their mean has seen every one.
* noise: wrong labels in 1, 5 and 10 % of each class; recall and precision of the suspects; FPR at
  TPR 0.9 of suspects kept, removed, unlabelled, flipped. In three ways: "turned", as all trainings
  here, with stamps turned and mirrored, drop-out, and the weights that did best on (noisy)
  validation stamps; "stopped", as published, without the first two; "heart", without all three, to
  the last step. The last two on fewer stamps. The first stage is always of the first way.
* peers: the simple and the deep network beside braai's VGG6 and a random forest on autoScan's 38
  numbers, on the same samples.
* real: published Deep-HiTS figures, and ZTF and LSST stamps scored by what was learnt in
  simulation and on real frames, also adapted to one half of their nights (without a label) and
  scored on the other.
* shift: two simulated cameras, pixels of one 1.7 times finer; learnt on the one, tested on the
  other: as it is, adapted to a night of it without labels of which 5 % is real, and with labels.

With ``--keep DIR`` all that is finished stays there, down to the scores of a network, and a run
that was stopped goes on where it was. ``--minutes`` stops the table in time and prints it for the
seeds that are finished.

    python bench/realbogus.py [--quick] [--only speed,noise] [--seeds N] [--keep DIR] [--minutes M]
        [--scale tiny|quick|small|laptop|medium|paper] [--rows K ...] [--steps N] [--deep N]
        [--data DIR] [--device cpu]
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from detections.noise import noise
from detections.peers import peers
from detections.real import real
from detections.scales import SCALES
from detections.shift import shift
from detections.speed import speed
from detections.table import ROWS, table
from detections.workbench import Bench

PARTS = {
    "speed": speed,
    "table": table,
    "noise": noise,
    "peers": peers,
    "real": real,
    "shift": shift,
}
"""What may be measured, by name."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--scale", default="", choices=["", *SCALES])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rows", type=int, nargs="+", choices=ROWS, help="of the table (all)")
    parser.add_argument("--steps", type=int, help="of the shallow networks; the scale's")
    parser.add_argument("--deep", type=int, help="steps of the deep network; the scale's")
    parser.add_argument("--net", default="simple", help="network of the noise experiment")
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--keep", default="", help="folder to keep models in, to go on later")
    parser.add_argument("--minutes", type=float, default=1e9, help="of the table, then stop")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--gallery", default="", help="folder for pages of real stamps")
    options = parser.parse_args()
    options.scale = options.scale or ("quick" if options.quick else "small")
    began = time.perf_counter()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(options, Path(options.keep or temporary))
        parts = options.only.split(",") if options.only else ["speed", "noise", "peers", "table"]
        if not (options.only or options.quick) and Path(options.data).is_dir():
            parts.append("real")
        if options.quick and not options.only:
            parts.remove("table")
        for part in parts:
            PARTS[part](bench)
    bench.result["seconds"] = time.perf_counter() - began
    print(json.dumps(bench.result))


if __name__ == "__main__":
    main()
