"""What the README says was found, from the files in nbs/results: the table, the sentences and the picture.

After new results: python tools/readme_results.py && python tools/make_readme.py. The first draws nbs/images/results.png and renews what nbs/index.ipynb shows of them."""
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parent.parent
TRIVIAL = ("chance", "majority", "stratified")
# what it is, essay, command, and where its rows are: file, condition on them
BOARD, TRAIN = "geomusic board {} --seeds {}", "python tools/train_corpora.py"
CORPORA = [
    ("folk tunes, 3 countries", "folk_tunes", "geomusic demo --per-country 300 --seeds 5 training.mixed_precision=bf16", "folk_tunes.csv", "experiment == '3 countries'"),
    ("folk tunes, 6 countries", "folk_tunes", "geomusic demo --countries CHN,DEU,FRA,GBR,IRL,LUX --per-country 200 --seeds 5 training.mixed_precision=bf16", "folk_tunes.csv", "experiment == '6 countries'"),
    ("UCI origins, 33 places", "origin", BOARD.format("origin", 5), "boards/origin.csv", ""),
    ("the same, neighbours kept apart", "origin", BOARD.format("origin_blocked", 1), "boards/origin_blocked.csv", ""),
    ("Global Jukebox, 13 regions", "jukebox", BOARD.format("jukebox_region", 1), "boards/jukebox_region.csv", ""),
    ("Global Jukebox, 54 countries", "jukebox", BOARD.format("jukebox_country", 1), "boards/jukebox_country.csv", ""),
    ("Spotify, 26 countries", "spotify", BOARD.format("spotify_26", 1), "boards/spotify_26.csv", ""),
    ("Spotify, 57 countries", "spotify", BOARD.format("spotify_57", 1), "boards/spotify_57.csv", ""),
    ("charts, 42 markets", "markets", BOARD.format("markets", 1), "boards/markets.csv", ""),
    ("the control, stations drawn by lot", "corpora", TRAIN, "corpora.csv", "corpus == 'mirage-region'"),
]


def best(rows: pd.DataFrame) -> dict:
    "The model of the highest mean accuracy over seeds (of those within half a point, the nearest), and the majority beside it."
    rows = rows.assign(seeds=rows.seed)
    mean = rows.groupby("model").agg({c: "mean" for c in ("accuracy", "accuracy_lo", "accuracy_hi", "km_median", "km_mean")} | dict(seeds="nunique"))
    rivals = mean.drop(index=[m for m in TRIVIAL if m in mean.index])
    level = rivals[rivals.accuracy > rivals.accuracy.max() - .005]  # half a point is nothing here: of these the nearest
    top = level.km_median.idxmin() if level.km_median.notna().any() else level.accuracy.idxmax()
    if "majority" in mean.index: majority, km = mean.accuracy["majority"], mean.km_median["majority"]
    else: majority, km = rows.majority_accuracy.mean(), rows.majority_km_median.mean()
    return dict(model=top, **mean.loc[top], majority=majority, majority_km=km, n=int(rows.n.max()), n_classes=rows.n_classes.max() if "n_classes" in rows else None)


def results(folder=ROOT / "nbs" / "results") -> pd.DataFrame:  # a row a corpus
    "The best row of each corpus whose results are there."
    out = []
    for what, essay, command, name, condition in CORPORA:
        if not (Path(folder) / name).exists(): continue
        rows = pd.read_csv(Path(folder) / name)
        out.append(dict(what=what, essay=essay, command=command) | best(rows.query(condition) if condition else rows))
    return pd.DataFrame(out)


def km(v): return "" if pd.isna(v) else f"{v:,.0f}"


def table(r: pd.DataFrame, folder=ROOT / "nbs" / "results") -> str:  # Markdown
    "A row a corpus, the trivial rival beside the best; with a link to its essay if there is one."
    link = lambda t: f"[{t.what}](results/{t.essay}.ipynb)" if (Path(folder) / f"{t.essay}.ipynb").exists() else t.what  # noqa: E731
    head = "| music | best model | accuracy (95 %) | majority | half within km | majority, km | seeds | made by |\n|---|---|---|---|---|---|---|---|\n"
    return head + "\n".join(f"| {link(t)} | {t.model} | **{t.accuracy:.3f}** ({t.accuracy_lo:.2f} to {t.accuracy_hi:.2f}) | {t.majority:.3f} | {km(t.km_median)} | "
                            f"{km(t.majority_km)} | {t.seeds:.0f} | `{t.command}` |" for t in r.itertuples())


def findings(r: pd.DataFrame, folder=ROOT / "nbs" / "results") -> str:  # Markdown
    "What was found, in four sentences with their numbers."
    t, tunes = r.set_index("what"), pd.read_csv(Path(folder) / "folk_tunes.csv")
    folk, uci, apart, radio = (t.loc[w] for w in ("folk tunes, 3 countries", "UCI origins, 33 places", "the same, neighbours kept apart", "the control, stations drawn by lot"))
    held = tunes[(tunes.experiment == "3 countries") & (tunes.model == folk.model)].held_out_accuracy.mean()
    leak = pd.read_csv(Path(folder) / "boards" / "markets_repeated.csv").accuracy.max()
    charts = t.loc["charts, 42 markets"]
    return "\n".join([
        f"- **A melody alone says a lot.** On six seconds of a folk tune, one timbre and any key, a network names the right one of three countries {folk.accuracy:.0%} of the time (the majority: {folk.majority:.0%}).",
        f"- **Part of that is the book and not the country.** Of Irish songs from another collection the same network calls {held:.0%} Irish.",
        f"- **Thirty-three places, {uci.n:,} tracks:** right for {uci.accuracy:.0%}, half of the pins within {uci.km_median:,.0f} km; with neighbouring rows, probably of one album, kept apart {apart.accuracy:.0%} and {apart.km_median:,.0f} km.",
        f"- **Careless splits invent knowledge.** With copies of a track on both sides a forest names {leak:.0%} of the markets; with each track once, {charts.accuracy:.0%}.",
        f"- **Where there is nothing to know, nothing is found.** Stations that were drawn by lot: {radio.accuracy:.1%}, and the majority is {radio.majority:.1%}."])


def picture(r: pd.DataFrame, path: Path) -> None:
    "The best of each corpus, and what always naming the largest class would score."
    from matplotlib.figure import Figure
    r = r.iloc[::-1].reset_index(drop=True)
    fig = Figure(figsize=(8, .38 * len(r) + 1.1), layout="constrained")
    ax = fig.subplots()
    ax.hlines(r.index, r.majority, r.accuracy, color="#cccccc", lw=1)
    ax.hlines(r.index, r.accuracy_lo, r.accuracy_hi, color="#0072B2", lw=4, alpha=.35)
    ax.plot(r.accuracy, r.index, "o", color="#0072B2", ms=8, label="the best model, with its 95 % interval")
    ax.plot(r.majority, r.index, "|", color="#D55E00", ms=14, mew=2.5, label="always the largest class")
    ax.set_yticks(r.index, r.what)
    for i, t in r.iterrows(): ax.text(1.02, i, f"{t.km_median:,.0f} km" if t.km_median == t.km_median else "", va="center", ha="left", fontsize=9, color="#444444")
    ax.text(1.02, len(r) - .35, "half within", fontsize=9, color="#444444")
    ax.set(xlim=(0, 1), xlabel="share named rightly, on tracks never seen")
    ax.xaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(left=False); ax.grid(axis="x", color="#eeeeee"); ax.set_axisbelow(True)
    fig.legend(loc="outside lower right", frameon=False, ncols=2, fontsize=9)
    fig.savefig(path, dpi=110, metadata={"Software": None})


def renew(path: Path) -> None:
    "The two stored outputs of the index that show results, without running the rest of it."
    import nbformat
    nb, r = nbformat.read(path, 4), results()
    for c in nb.cells:
        for call, text in (("readme.findings(", findings(r)), ("readme.table(", table(r))):
            if c.cell_type == "code" and call in c.source:
                c.outputs = [nbformat.v4.new_output("execute_result", {"text/markdown": text, "text/plain": "<IPython.core.display.Markdown object>"})]
    nbformat.write(nb, path)


if __name__ == "__main__":
    picture(results(), ROOT / "nbs" / "images" / "results.png")
    renew(ROOT / "nbs" / "index.ipynb")
