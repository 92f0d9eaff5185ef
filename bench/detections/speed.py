"""The engine beside the layers it computes, and the cascade over a night on disk."""

import time
from typing import Any

import numpy as np
import torch
from detections.scales import SIDE
from detections.workbench import Bench, say

from skyvec.models.stamps import CLASSIFIERS
from skyvec.realbogus import metrics
from skyvec.realbogus.fast import engine
from skyvec.realbogus.samples import write_survey
from skyvec.realbogus.score import Judge, score_survey, screen_loss, screen_threshold
from skyvec.realbogus.train import Draw, scores_of, split


def speed(bench: Bench) -> None:
    """The engine beside the layers, and the cascade."""
    learn, test = bench.data()
    say("speed, one thread")
    torch.set_num_threads(1)
    deep = bench.train(
        learn,
        {**bench.recipe("complex", {}, 0, width=32), "train": {
            "steps": 20 if bench.options.quick else 400, "batch": 32, "warm_up": 10,
            "schedule": "cosine", "clip": 1.0, "validate_every": 20 if bench.options.quick
            else 100}},
        "speed-complex",
    )  # fmt: skip
    fast = bench.train(learn, bench.recipe("simple", {}, 0, width=32), "speed-screen")
    plain = CLASSIFIERS["complex"]()
    plain.load_state_dict(deep.state_dict())
    plain = plain.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    n = 768 if bench.options.quick else 4096
    x = np.ascontiguousarray(test.pixels[:n])

    def loop(pixels: np.ndarray) -> np.ndarray:
        out = []
        with torch.inference_mode():
            for first in range(0, len(pixels), 256):
                z = plain(torch.from_numpy(pixels[first : first + 256]))
                out.append((z[:, 1] - z[:, 0]).double().numpy())
        return np.concatenate(out)

    ours = engine(deep)
    ways = {
        "eager": loop, "engine": ours, "channels last": lambda p: scores_of(deep, p),
        "simple": engine(fast),
    }  # fmt: skip
    scores = {name: run(x) for name, run in ways.items()}
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(3):  # in turns: what else the machine does hits them all
        for name, run in ways.items():
            began = time.thread_time()
            run(x)
            took[name].append(time.thread_time() - began)
    rates = {name: n / min(times) for name, times in took.items()}
    for name, rate in rates.items():
        say(f"  {name:14s} {rate:8.0f} stamps/s and core")
    quotient = float(np.median(np.divide(took["eager"], took["engine"])))
    at_best = rates["engine"] / rates["eager"]
    say(f"  engine {quotient:.2f} times eager (median of turns; best over best {at_best:.2f})")
    square = torch.randn(1024, 1024)
    torch.mm(square, square)
    best = np.inf
    for _ in range(5):
        began = time.thread_time()
        torch.mm(square, square)
        best = min(best, time.thread_time() - began)
    peak = 1024**3 / best
    say(
        f"  a library multiplies and adds {peak / 1e9:.1f} thousand million times a second, "
        f"at which {peak / 107e6:.0f} stamps/s and core is the most of direct convolution"
    )
    label = test.label[:n]
    drift = abs(metrics.auc(scores["eager"], label) - metrics.auc(scores["engine"], label))
    moved = float(np.abs(scores["eager"] - scores["engine"]).max())
    say(f"  AUC differs by {drift:.1e}, a score by {moved:.1e} at most")
    assert drift < 1e-4, f"the engine changes the AUC by {drift}"
    bench.result |= {
        "score_vs_eager": quotient,
        "score_vs_eager_best": at_best,
        "auc_diff": drift,
        "score_diff": moved,
        "stamps_per_s_core": rates,
        "sgemm_per_s": peak,
    }
    cascade(bench, deep, fast)


def cascade(bench: Bench, deep: Any, fast: Any) -> None:
    """A night on disk, screened and decided."""
    learn, test = bench.data()
    valid = learn.take(np.flatnonzero(split(learn, Draw(test=0.0)) == 1))
    first, score, label = engine(fast)(valid.pixels), engine(deep)(valid.pixels), valid.label
    at = metrics.best_threshold(score, label, prevalence=1e-3)["threshold"]
    pass_at = screen_threshold(first, score, label, at)
    judges = [Judge(engine(net), "asinh", SIDE, name) for net, name in (
        (deep, "deep"), (fast, "fast"))]  # fmt: skip
    survey = bench.folder / "night"
    stamps, catalog = bench.test_raw
    n = min(len(stamps), 6000 if bench.options.quick else len(stamps))
    rows = np.arange(n)
    write_survey(survey, stamps.take(rows), catalog.take(rows), "bench")
    for name, (judge, screen, point) in {
        "cascade": (judges[0], judges[1], pass_at),
        "simple alone": (judges[1], None, -np.inf),
    }.items():
        began, used = time.perf_counter(), time.process_time()
        counts = score_survey(
            survey, bench.folder / f"scores-{name}", judge, screen=screen, pass_at=point,
            workers=2,
        )  # fmt: skip
        rate = counts["received"] / (time.perf_counter() - began)
        core = counts["received"] / (time.process_time() - used)
        say(
            f"  {name}: {rate:,.0f} stamps/s on 2 threads from disk to disk, {core:,.0f} a "
            f"second of one core; {counts}"
        )
        bench.result[f"{name.split()[0]}_stamps_per_core_s"] = core
        key = "cascade_stamps_per_s" if name == "cascade" else "simple_stamps_per_s"
        bench.result[key] = rate
    loss = screen_loss(
        engine(fast)(test.pixels), engine(deep)(test.pixels), test.label, at, pass_at
    )
    say(
        f"  of {loss['reals']:,} reals above the threshold the screen loses {loss['lost']}, "
        f"surely less than {loss['at_most']:.2%}"
    )
    bench.result["cascade_lost"] = loss
