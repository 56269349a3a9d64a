"Kernel time of one move of a slider, thirteen descriptors, 500 tracks; beside it drawing the whole figure anew. Run: python benchmarks/whatif.py"
import statistics
import time

import numpy as np
import pandas as pd
import torch

from geomusic.config import load_config
from geomusic.exploring.importance import TableModel
from geomusic.exploring.whatif import answer_plot, explore_whatif
from geomusic.inputs import rings
from geomusic.sound.descriptors import DESCRIPTORS
from geomusic.train import fit


def main():
    torch.set_num_threads(1)
    x, y, split = rings(600)
    run = fit(x, y, split, load_config(None, ["model.type=fcnn", "training.num_epochs=3"]), progress=False, view=dict(name="tabular", features=DESCRIPTORS))
    tracks = pd.DataFrame(dict(track_id=[f"t{i}" for i in range(500)], title="a tune", country=y[:500], group="g"))
    model = TableModel(lambda v: run.predict_proba(np.asarray(v, np.float32)), x[:500].astype(float), x[500:550].astype(float), tracks, DESCRIPTORS, run.labels)
    begin = time.perf_counter()
    box = explore_whatif(model)
    print(f"open: {time.perf_counter() - begin:.2f} s")
    slider, moves, anew = box.sliders["tempo"], [], []
    for i in range(60):
        begin = time.perf_counter()
        slider.index = (slider.index + 1) % len(slider.options)
        moves.append(1000 * (time.perf_counter() - begin))
        begin = time.perf_counter()
        answer_plot(box.before, box.after, model.labels)
        anew.append(1000 * (time.perf_counter() - begin))
    print(f"a move: median {statistics.median(moves):.1f} ms, 95 % under {np.quantile(moves, .95):.1f} ms; a new figure instead of new bars would add {statistics.median(anew):.1f} ms")


if __name__ == "__main__":
    main()
