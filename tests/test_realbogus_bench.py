"""Contract and simulated sky: the experiment of the paper's rows runs whole, and resumes."""

import json
import math
import runpy
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench" / "realbogus.py"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_eleven_rows_run_at_their_smallest_scale_and_go_on(
    tmp_path, capsys, monkeypatch, one_thread
):
    def run():
        arguments = ["--only", "table", "--scale", "tiny", "--seeds", "1", "--keep", str(tmp_path)]
        monkeypatch.setattr("sys.argv", [str(BENCH), *arguments])
        monkeypatch.syspath_prepend(BENCH.parent)  # as where it is run as a script
        runpy.run_path(str(BENCH), run_name="__main__")
        printed = capsys.readouterr().out
        return printed, json.loads(printed.splitlines()[-1])

    printed, result = run()
    for k in range(1, 12):
        row = result[f"row{k}"]
        low, high = row["interval"]
        assert 0 <= low <= high <= 1 and low < row["fpr_at_0.9"] * 1.5 and len(row["seeds"]) == 1
        assert row["fpr_at_0.9"] == pytest.approx(row["seeds"][0])
        assert 0 < row["auc"] < 1
    # the deep network has had a few hundred stamps; the simple one, on everything, has learnt
    assert result["row3"]["auc"] > 0.8
    # 0.6 % of the bogus and 1 % of the reals have a wrong label
    found = result["table-folds_argmax"]
    assert found["wrong"] == round(0.006 * 1200) + round(0.01 * 900) and found["suspects"] > 0
    assert "holds" in printed or "reversed" in printed or "open" in printed
    assert all(0 <= result[key] <= 1 for key in ("2<1", "3<2", "8<4", "11<4"))

    def fail(*_, **__):
        raise AssertionError("a finished network is trained again")

    monkeypatch.setattr("skyvec.realbogus.train.fit", fail)
    again = run()[1]
    for key in set(result) - {"seconds"}:
        assert again[key] == result[key] or math.isnan(result[key])
