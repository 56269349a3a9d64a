"A folder of sound: every file accounted for, none that lies outside, and a corpus that can move with its sound."
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from geomusic.corpora.audio_folder import audio_folder_corpus, save_audio_corpus
from geomusic.corpus import load_corpus
from geomusic.files import InputError


def sound(path, seed=0, seconds=0.5, sr=8000):
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * sr)), sr)
    return path


@pytest.fixture
def music(tmp_path):
    "Three countries, two artists in each, two songs of each"
    for i, country in enumerate(("Kenya", "Peru", "Türkiye")):
        for j in range(4):
            sound(tmp_path / "music" / country / f"artist {j // 2}" / f"song {j}.wav", 10 * i + j)
    return tmp_path / "music"


def sums(corpus):
    r = corpus.report
    assert r["read"] == r["kept"] + r["merged"] + sum(r["refused"].values()) and r["kept"] == len(corpus)
    return r


def test_artists_do_not_stand_on_two_sides(music):
    corpus = audio_folder_corpus(music, progress=False)
    assert sums(corpus)["read"] == 12 and corpus.tracks.group.nunique() == 6 and corpus.report["notes"] == []
    assert corpus.tracks.country.value_counts().to_dict() == dict(KEN=4, PER=4, TUR=4)


def test_extensions_in_any_case_and_sound_under_a_false_name(music):
    shutil.copy(music / "Kenya" / "artist 0" / "song 0.wav", music / "Kenya" / "SHOUT.WAV")
    shutil.copy(music / "Kenya" / "artist 0" / "song 0.wav", music / "Kenya" / "false.mp3")  # libsndfile looks at the content
    (music / "Kenya" / "movie.m4a").write_bytes(b"\0\0\0\x20ftypM4A ")
    r = sums(audio_folder_corpus(music, progress=False))
    assert r["kept"] >= 13 and r["refused"]["unknown suffix .m4a"] == 1


def test_links_are_followed_inside_only(music, tmp_path):
    sound(tmp_path / "private" / "diary.wav", 99)
    (music / "Kenya" / "link.wav").symlink_to(tmp_path / "private" / "diary.wav")
    (music / "Kenya" / "folder").symlink_to(tmp_path / "private")
    (music / "Peru" / "circle").symlink_to(music)
    (music / "Peru" / "same.wav").symlink_to(music / "Peru" / "artist 0" / "song 0.wav")
    (music / "Peru" / "dangling.wav").symlink_to(music / "gone.wav")
    r = sums(audio_folder_corpus(music, progress=False))
    assert r["kept"] == 12 and sum(r["refused"].values()) == 5 and r["refused"]["file listed twice"] == 1 and r["refused"]["missing"] == 1
    r = sums(audio_folder_corpus(music, outside=True, progress=False))
    assert r["kept"] == 13, "the diary, once"


@pytest.mark.parametrize("path", ["../private/diary.wav", "Kenya/../../private/diary.wav", "{abs}", "Kenya/link.wav", "Kenya/folder/diary.wav", "..\\private\\diary.wav", "file://{abs}", "~/diary.wav"])
def test_a_manifest_does_not_lead_out_of_the_folder(music, tmp_path, path):
    diary = sound(tmp_path / "private" / "diary.wav", 99)
    (music / "Kenya" / "link.wav").symlink_to(diary)
    (music / "Kenya" / "folder").symlink_to(diary.parent)
    pd.DataFrame(dict(path=["Kenya/artist 0/song 0.wav", path.format(abs=diary)], country="Kenya")).to_csv(tmp_path / "list.csv", index=False)
    corpus = audio_folder_corpus(music, tmp_path / "list.csv", progress=False)
    assert sums(corpus)["kept"] == 1 and "diary" not in corpus.tracks.audio.iloc[0]


def test_a_manifest_is_accounted_for_line_by_line(music, tmp_path):
    files = sorted(p.relative_to(music).as_posix() for p in music.rglob("*.wav"))
    lines = [f'"{f}",{-1.3 + i / 10},{36.8},Ana,x{i}' for i, f in enumerate(files[:4])]
    lines += ["too,few", f'"{files[4]}",,,Ana,', f'"{files[5]}",36.8,-1.3,Ana,', f'"{files[6]}",91,0,Ana,', f'"{files[7]}",one,two,Ana,', "too,many,,,,,,,"]
    (tmp_path / "list.csv").write_text("\n".join(["audio_file,latitude,longitude,singer,mood", *lines]) + "\n")
    corpus = audio_folder_corpus(music, tmp_path / "list.csv", progress=False)
    r = sums(corpus)
    assert r["read"] == 10 and set(corpus.tracks.country[:4]) == {"KEN"} and corpus.tracks.mood.tolist()[:4] == ["x0", "x1", "x2", "x3"]
    assert r["refused"]["neither country nor coordinates"] == 1 and sum(n for why, n in r["refused"].items() if why.startswith("coordinates")) >= 2


def test_saved_it_can_move_with_its_sound(music, tmp_path):
    from geomusic.sound.analysis import Analysis
    from geomusic.sound.engine import extract

    saved = save_audio_corpus(audio_folder_corpus(music, progress=False), tmp_path / "corpora" / "mine")
    assert not saved.tracks.audio.str.startswith("/").any()
    (tmp_path / "elsewhere").mkdir()
    for name in ("music", "corpora"):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    moved = load_corpus(tmp_path / "elsewhere" / "corpora" / "mine")
    view = extract(moved, ["melspec"], Analysis(dur_s=0.5), n_jobs=1, progress=False)["melspec"]
    assert (view.n_frames > 0).all() and not view.refused


def test_a_corpus_below_a_link_finds_its_sound(music, tmp_path):
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "deep")
    saved = save_audio_corpus(audio_folder_corpus(music, progress=False), tmp_path / "link" / "mine")
    assert all((saved.folder / p).is_file() for p in saved.tracks.audio)


@pytest.mark.parametrize("text, expected", [("", "list.csv"), ("path\n", "list.csv"), ("path,mood\na.wav,calm\n", "where its files are from"), ("country\nPeru\n", "path"), ("path,country\nnowhere.wav,Peru\n", "missing")])
def test_manifests_of_no_use(music, tmp_path, text, expected):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(InputError, match=expected) as error:
        audio_folder_corpus(music, tmp_path / "list.csv", progress=False)
    assert "\n" not in str(error.value)
