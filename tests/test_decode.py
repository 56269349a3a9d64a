"""Decoding: every whole file gives the sound it was made of, every broken one its reason, and nothing else ever happens."""
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import sounds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geomusic.files import InputError
from geomusic.sound import containers, decode
from geomusic.sound.containers import REASONS, SoundError, has_ffmpeg, open_sound
from geomusic.sound.decode import load_audio, sound_info, sound_windows

needs_ffmpeg = pytest.mark.skipif(not has_ffmpeg(), reason="ffmpeg and ffprobe are not installed")
linux = pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the kernel does not count what is read")


def reason(path, **options):
    "Why a file is refused; '' if it is not"
    try:
        y = load_audio(path, **options)
    except SoundError as e:
        assert e.reason in REASONS and e.reason in str(e) and "\n" not in str(e) and str(e).isprintable()
        return e.reason
    assert y.ndim == 1 and y.dtype == np.float32 and len(y) and np.isfinite(y).all() and np.ptp(y) > 0
    return ""


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    "300 files, a tenth of them damaged"
    folder = tmp_path_factory.mktemp("music")
    return folder, sounds.make_sounds(folder)


@pytest.fixture(scope="module")
def song():
    "Ten seconds at 22,050 Hz"
    return sounds.tune_sound(list(sounds._tunes())[7], 22050, 10.0)


def put(path, y, sr, kind="wav 16", **options):
    path.write_bytes(sounds.encode(y, sr, kind))
    return path


# ---- whole and damaged


def test_every_damaged_file_has_its_reason(music):
    folder, table = music
    bad = table[table.truth != ""]
    assert len(bad) == 30 and bad.damage.nunique() == len(sounds.DAMAGES) and set(bad.truth) == set(REASONS)
    assert [reason(folder / p) for p in bad.path] == bad.truth.tolist()


# the least correlation, the most that the level may be off in dB: lame plays at 95 % below 32 kHz (-0.45 dB), opus at 8 and 16 kHz keeps less than there is
TOLERANCE = {"PCM_16": (0.99999, 0.001), "PCM_24": (0.9999999, 1e-5), "FLOAT": (0.9999999, 1e-5), "VORBIS": (0.998, 0.1), "MPEG_LAYER_III": (0.999, 0.5), "OPUS": (0.98, 0.1)}


def test_every_whole_file_gives_its_sound(music):
    folder, table = music
    good = table[table.truth == ""]
    assert set(good.channels) == {1, 2, 6} and good.sr.nunique() == len(sounds.RATES)
    for row in good.itertuples():
        info, y, truth = sound_info(folder / row.path), load_audio(folder / row.path, row.sr), sounds.sound_of(row)
        assert (info.format, info.subtype, info.sr, info.channels) == (row.format, row.subtype, row.sr, row.channels), row
        assert len(y) == len(truth) and abs(info.dur_s - row.dur_s) < 0.01, row
        correlation, level_db = TOLERANCE[row.subtype]
        assert np.corrcoef(y, truth)[0, 1] > correlation, row
        assert abs(20 * np.log10(y.std() / truth.std())) < level_db, row


def test_a_part_is_a_stretch_of_the_whole(music):
    folder, table = music
    for row in table[table.truth == ""].iloc[::6].itertuples():
        whole = load_audio(folder / row.path)
        for where in ("start", "centre", "random"):
            part = load_audio(folder / row.path, dur_s=0.8, where=where, seed=row.Index)
            start, _ = decode._part(open_sound(folder / row.path), 22050, 0.8, where, row.Index)
            at = start * 22050 / row.sr
            assert at == int(at) and len(part) == round(0.8 * 22050), row
            assert np.allclose(whole[int(at) :][500 : len(part) - 500], part[500:-500], atol=2e-3), row
            if where != "random":
                assert abs(at - (where == "centre") * (len(whole) - len(part)) / 2) <= 0.02 * 22050 + 1, row


def test_the_same_sounds_for_the_same_seed(tmp_path):
    a, b, c = (sounds.make_sounds(tmp_path / str(i), 12, seed=s) for i, s in enumerate((3, 3, 4)))
    assert a.equals(b) and not a.equals(c)
    assert all(np.array_equal(load_audio(tmp_path / "0" / p), load_audio(tmp_path / "1" / p)) for p in a.path[a.truth == ""])


# ---- names and places


@pytest.mark.parametrize("name", ["-i.wav", "-", "a\nb.wav", "a b;rm -rf x.wav", "$(touch hacked).wav", "%d.wav", "pipe:0", "http:x.wav", "concat:a.wav|b.wav", "Ünï 中文 🎵.WAV", "'\".wav", "x.unknown", "no suffix", b"\xff\xfe latin.wav"])
def test_odd_names(tmp_path, song, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(name)
    put(Path(name), song, 22050)
    assert reason(Path(name)) == "" and reason(name, dur_s=1.0) == ""
    Path(name).write_bytes(b"x" * 999)
    assert reason(Path(name)) in ("corrupt", "no decoder")
    assert os.listdir(os.fsencode(".")) == [os.fsencode(name)]


@pytest.mark.parametrize("path", ["http://127.0.0.1:9/a.mp3", "concat:a|b", "data:audio/wav;base64,AAAA", "file:///etc/passwd", "a\0b.wav", "", ".", "/dev/zero", "x" * 5000])
def test_what_is_no_file(path):
    if not (path == "/dev/zero" and os.name == "nt"):
        assert reason(path) == "missing"


@pytest.mark.skipif(os.name == "nt", reason="no named pipes")
def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    assert reason(tmp_path / "pipe.wav") == "missing"


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path, song):
    put(tmp_path / "a.wav", song, 22050).chmod(0)
    assert reason(tmp_path / "a.wav") == "missing"


def test_arguments():
    for bad in (dict(sr=0), dict(sr=22050.5), dict(sr="x"), dict(dur_s=0.0), dict(dur_s=-1), dict(dur_s=np.nan), dict(dur_s=np.inf), dict(where="end"), dict(lufs=1), dict(lufs=np.nan)):
        with pytest.raises(InputError) as e:
            load_audio("nowhere.wav", **bad)
        assert not isinstance(e.value, SoundError)
    with pytest.raises(SoundError):  # at once, not with the first window
        sound_windows("nowhere.wav")


def test_errors_come_home_from_workers(tmp_path):
    from joblib import Parallel, delayed

    (tmp_path / "a.wav").write_bytes(b"")
    [found] = Parallel(2, "loky")([delayed(reason)(tmp_path / "a.wav")])
    assert found == "empty"
    error = pickle.loads(pickle.dumps(SoundError("silent", "p", "r")))
    assert (error.reason, error.problem, error.remedy) == ("silent", "p", "r")


# ---- labels and content


@pytest.mark.parametrize("content, name, expected", [
    ("mp3", "a.wav", "mislabelled"), ("wav 16", "a.flac", "mislabelled"), ("vorbis", "a.mp3", "mislabelled"), ("aiff", "a.wav", "mislabelled"), ("opus", "a.ogg", ""),
    ("vorbis", "a.oga", ""), ("mp3", "a.MP3", ""), ("aiff", "a.aif", ""), ("flac 16", "a.xyz", ""), ("mp3", "a", "")])  # fmt: skip
def test_labels(tmp_path, song, content, name, expected):
    path = put(tmp_path / name, song, 16000, content)
    assert reason(path) == expected
    if expected:
        with pytest.raises(SoundError, match=f"it is {sounds.KINDS[content][1]}"):
            sound_info(path)


def test_an_id3_tag_in_front_of_anything(tmp_path, song):
    tag = b"ID3\x03\x00\x00" + bytes([0, 3, 0, 0]) + bytes(3 * 128 * 128)  # 48 kB of cover
    for kind in ("mp3", "flac 16", "wav 16"):
        path = tmp_path / f"a.{sounds.KINDS[kind][0]}"
        path.write_bytes(tag + sounds.encode(song, 22050, kind))
        assert len(load_audio(path)) == len(song), kind
        path.write_bytes(path.read_bytes()[: len(tag) + 5000])
        assert reason(path) == "corrupt", kind
    (tmp_path / "b.mp3").write_bytes(tag[:1000])
    assert reason(tmp_path / "b.mp3") == "corrupt"


def test_a_wav_whose_length_was_not_known(tmp_path, song):
    data = bytearray(sounds.encode(song, 22050, "wav 16"))
    assert data[36:40] == b"data"
    data[40:44] = b"\xff" * 4  # as ffmpeg writes to a pipe
    (tmp_path / "a.wav").write_bytes(data)
    assert len(load_audio(tmp_path / "a.wav")) == len(song)
    data[40:44] = bytes(4)  # as a recorder leaves it that lost power
    (tmp_path / "a.wav").write_bytes(data)
    assert reason(tmp_path / "a.wav") == "corrupt"


def test_a_flac_whose_length_is_not_known(tmp_path, song):
    data = bytearray(sounds.encode(song, 22050, "flac 16"))
    data[21] &= 0xF0
    data[22:26] = bytes(4)  # 36 bits: how many samples there are
    (tmp_path / "a.flac").write_bytes(data)
    assert sound_info(tmp_path / "a.flac").dur_s == 10
    whole = load_audio(tmp_path / "a.flac")
    assert np.array_equal(load_audio(tmp_path / "a.flac", dur_s=2.0), whole[(len(song) - 44101) // 2 :][:44100])


@pytest.mark.parametrize("kind", list(sounds.KINDS))
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_cut_file_is_refused_wherever_one_listens(tmp_path, song, kind, share):
    data = sounds.encode(song, 48000, kind)
    path = tmp_path / f"a.{sounds.KINDS[kind][0]}"
    path.write_bytes(data[: int(len(data) * share) + 1])
    assert [reason(path, dur_s=d, where=w) for d, w in ((None, "start"), (0.3, "start"), (0.3, "centre"))] == ["corrupt"] * 3


@pytest.mark.parametrize("format, suffix", [("RF64", "wav"), ("CAF", "caf"), ("AU", "au"), ("WAVEX", "wav"), ("AIFF", "aifc")])
def test_other_containers_of_samples(tmp_path, song, format, suffix):
    path = tmp_path / f"a.{suffix}"
    sf.write(path, song, 22050, "PCM_16", format=format)
    assert len(load_audio(path)) == len(song)
    path.write_bytes(path.read_bytes()[:-100_000])
    assert reason(path) == "corrupt"


# ---- channels, level, loudness


def test_channels_that_cancel(tmp_path, song):
    assert np.allclose(load_audio(put(tmp_path / "a.wav", np.stack([song, -song], 1), 22050)), song, atol=1e-4)
    assert reason(put(tmp_path / "b.wav", np.full((22050, 2), 0.5, np.float32), 22050)) == "silent"  # a constant is no sound


def test_level_is_left_alone(tmp_path, song):
    loud = put(tmp_path / "a.wav", 5 * song / np.abs(song).max(), 22050, "wav float")
    assert np.isclose(np.abs(load_audio(loud)).max(), 5)
    assert reason(put(tmp_path / "b.wav", 1e30 * song, 22050, "wav float")) == "corrupt"


def test_loudness(tmp_path, song):
    meter = decode_meter(22050)
    for gain in (1.0, 0.01):
        path = put(tmp_path / "a.wav", gain * song, 22050, "wav float")
        plain, level = load_audio(path), load_audio(path, lufs=-23.0)
        assert abs(meter.integrated_loudness(level) + 23) < 0.05 and np.corrcoef(plain, level)[0, 1] > 0.999999
    assert np.abs(load_audio(path, lufs=-1.0)).max() > 1
    assert reason(put(tmp_path / "b.wav", song[2000:8000], 22050), lufs=-23.0) == "too short"
    assert reason(put(tmp_path / "c.wav", 0.0005 * song, 22050, "wav float"), lufs=-23.0) == "silent"


def decode_meter(sr):
    import pyloudnorm

    return pyloudnorm.Meter(sr, "DeMan")


# ---- parts and windows


@pytest.mark.parametrize("kind", list(sounds.KINDS))
def test_seeks_are_exact_to_the_sample(tmp_path, song, kind):
    y = np.tile(song, 3)
    path = put(tmp_path / f"a.{sounds.KINDS[kind][0]}", y, 16000, kind)
    whole = load_audio(path, 16000)
    for seed in range(12):
        reader = open_sound(path)
        start, n = decode._part(reader, 16000, 1.0, "random", seed)
        assert np.allclose(load_audio(path, 16000, 1.0, "random", seed), whole[start : start + n][:16000], atol=1e-6), (seed, start)


@pytest.mark.parametrize("kind", list(sounds.KINDS))
def test_in_blocks_as_at_once(tmp_path, song, kind):
    path = put(tmp_path / f"a.{sounds.KINDS[kind][0]}", song, 16000, kind)
    reader, once = open_sound(path), sf.read(path, dtype="float32", always_2d=True)[0]
    blocks = list(reader.blocks(0, reader.frames))
    assert len(blocks) > 2 and np.allclose(np.concatenate(blocks), once, atol=1e-6, rtol=0)


def untagged(data):
    "An mp3 without the frame that has the tag"
    return data[containers._mp3_frame(data, 0)[0] :]


@pytest.mark.parametrize("kind", ["mp3", "mp3 vbr"])
@pytest.mark.parametrize("sr, channels", [(8000, 1), (16000, 2), (44100, 1), (48000, 2)])
def test_mp3_without_a_tag(tmp_path, song, kind, sr, channels):
    y = np.concatenate([np.zeros_like(song), song, 0.2 * song])[:, None] * sounds.gains(channels)
    data = sounds.encode(y, sr, kind)
    (tmp_path / "tagged.mp3").write_bytes(data)
    (tmp_path / "a.mp3").write_bytes(b"junk" * 99 + untagged(data) + b"APETAGEX" * 300 + b"TAG" + bytes(125))
    tagged, y = load_audio(tmp_path / "tagged.mp3", sr), load_audio(tmp_path / "a.mp3", sr)
    assert 0 <= len(y) - len(tagged) < 4000
    late = max(range(len(y) - len(tagged) + 1), key=lambda k: float(y[k : k + len(tagged)] @ tagged))
    assert np.allclose(y[late : late + len(tagged)], tagged, atol=1e-4), "nothing is lost but the tag's knowledge of the padding"
    for seed in range(4):
        start, n = decode._part(open_sound(tmp_path / "a.mp3"), sr, 1.0, "random", seed)
        assert np.allclose(np.concatenate(list(decode._mono(open_sound(tmp_path / "a.mp3"), start, n)))[:sr], y[start : start + sr], atol=1e-6)


def test_an_untagged_mp3_with_a_hole(tmp_path, song):
    (tmp_path / "a.mp3").write_bytes(sounds._hole(untagged(sounds.encode(song, 22050, "mp3"))))
    assert reason(tmp_path / "a.mp3") == "corrupt" and reason(tmp_path / "a.mp3", dur_s=0.3, where="start") == "corrupt"


@pytest.mark.parametrize("kind", ["mp3", "mp3 vbr"])
def test_long_mp3s(tmp_path, song, kind):
    noise = np.random.default_rng(0).standard_normal(11 * 60 * 8000).astype(np.float32)
    path = put(tmp_path / "a.mp3", noise * np.linspace(0.3, 0.01, len(noise), dtype=np.float32), 8000, kind)  # 11 minutes, no second like another
    reader = open_sound(path)
    assert reader.frames > containers.LONG_S * reader.sr and "toc" in reader.tag
    whole = np.concatenate([x[:, 0] for x in containers._Sndfile(path).blocks(0, reader.frames)])
    for start in (1, 40_000, reader.frames // 2, reader.frames - 80_000):
        part = np.concatenate([x[:, 0] for x in reader.blocks(start, 80_000)])
        assert len(part) == 80_000
        places = np.flatnonzero(np.abs(whole - part[40_000]) < 1e-6) - 40_000
        n = 78_000  # at the end some of the encoder's padding may be among it, a frame or two
        [near] = [k for k in places if k >= 0 and len(whole) - k >= n and np.allclose(whole[k : k + n], part[:n], atol=1e-5)]
        assert abs(near - start) < 8000 * 7  # the very samples, about there: a place in the table is good for 1 % of the file


@pytest.mark.parametrize("kind", ["wav 16", "flac 24", "vorbis", "mp3 vbr"])
def test_windows_have_no_seams(tmp_path, song, kind):
    path = put(tmp_path / f"a.{sounds.KINDS[kind][0]}", song, 16000, kind)  # 13.8 s
    whole, windows = load_audio(path), list(sound_windows(path, dur_s=2.5))
    assert [len(w) for w in windows] == [55125] * 5 + [len(whole) - 5 * 55125] and np.array_equal(np.concatenate(windows), whole)
    assert len(list(sound_windows(path, dur_s=3.0))) == 5 and len(list(sound_windows(path, dur_s=4.0))) == 3  # 13.8 s = 4 x 3 + 1.8 = 3 x 4 + 1.8
    [one] = sound_windows(path, dur_s=99.0)
    assert np.array_equal(one, whole)


def test_windows_of_a_file_that_breaks_off(tmp_path, song):
    data = sounds.encode(np.tile(song, 3), 22050, "flac 16")
    path = tmp_path / "a.flac"
    path.write_bytes(data[: len(data) * 2 // 3] + bytes(9999) + data[len(data) * 2 // 3 + 9999 :])
    got = []
    with pytest.raises(SoundError) as e:
        got.extend(sound_windows(path, dur_s=5.0))  # extend takes in what comes before the error
    assert e.value.reason == "corrupt"
    (tmp_path / "b.flac").write_bytes(sounds.encode(np.zeros(10 * 22050), 22050, "flac 16"))
    with pytest.raises(SoundError) as e:
        list(sound_windows(tmp_path / "b.flac", dur_s=3.0))
    assert e.value.reason == "silent"


def bytes_read(path, **options):
    counts = []
    for done in (lambda: None, lambda: load_audio(path, **options)):
        done()
        counts.append(int(Path("/proc/self/io").read_text().split("rchar:")[1].split()[0]))
    return counts[1] - counts[0]


def long_mp3(data, times):
    "The frames of an mp3, many times over, with a tag that tells where they are"
    frames = containers._mp3_frames(data)[1:]
    middle = data[frames[0, 0] : frames[-1, 1]] * times
    tagged = bytearray(containers._with_xing(middle, np.array([[0, 0], *[[0, len(middle)]] * (len(frames) * times - 1)])))
    at = tagged.find(b"Xing")
    first = len(tagged) - len(middle)
    places = np.arange(100) * 256 // 100  # the same minute again and again: place and time agree
    tagged[at + 4 : at + 116] = struct.pack(">III", 7, len(frames) * times, len(middle) + first) + bytes(places.tolist())
    return bytes(tagged)


@linux
@pytest.mark.parametrize("kind, minutes", [("wav 16", (16, 64)), ("flac 16", (16, 64)), ("aiff", (16, 64)), ("vorbis", (6, 24)), ("mp3", (11, 44)), ("mp3 vbr", (11, 44))])
def test_the_cost_of_a_part_does_not_grow(tmp_path, song, kind, minutes):
    sizes, read, minute = [], [], np.tile(song, 3)[: 60 * 8000]
    for m in minutes:
        path = tmp_path / f"{m}.{sounds.KINDS[kind][0]}"
        path.write_bytes(long_mp3(sounds.encode(minute, 8000, kind), m) if "mp3" in kind else sounds.encode(np.tile(minute, m), 8000, kind))
        assert abs(sound_info(path).dur_s - 60 * m) < 0.2 * m
        sizes, read = sizes + [path.stat().st_size], read + [bytes_read(path, sr=8000, dur_s=5.0)]
    assert sizes[1] > 3.9 * sizes[0] and read[1] < 1.3 * read[0] + 20_000 and read[1] < 0.25 * sizes[1], (sizes, read)


CHILD = """
import sys
from geomusic.sound.decode import load_audio, sound_windows
load_audio(sys.argv[2], dur_s=1.)
mb = lambda: int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])//1024
before = mb()
y = load_audio(sys.argv[1], dur_s=30.)
n = sum(1 for w in sound_windows(sys.argv[1], sr=8000))
print(len(y), n, mb() - before)
"""


@linux
def test_an_hour_does_not_fill_the_memory(tmp_path, song):
    "An hour of 16 kHz stereo, 230 MB, most of it a hole in the disk; decoded it would be twice that"
    put(tmp_path / "short.wav", song, 22050)
    with open(tmp_path / "hour.wav", "wb") as f:
        n = 3600 * 16000 * 4
        f.write(struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", n + 36, b"WAVE", b"fmt ", 16, 1, 2, 16000, 64000, 4, 16, b"data", n))
        f.truncate(44 + n)
        f.seek(44 + n // 2 + 64000 * 10)  # ten seconds into a window
        f.write((np.repeat(song[:, None], 2, 1) * 30000).astype("<i2").tobytes())
    out = subprocess.run([sys.executable, "-c", CHILD, tmp_path / "hour.wav", tmp_path / "short.wav"], capture_output=True, text=True, check=True).stdout
    samples, windows, mb = map(int, out.split())
    assert samples == 30 * 22050 and windows == 1 and mb < 60, out


# ---- a quiet screen

NOISY = """
import sys, threading
from geomusic.sound.decode import load_audio, SoundError
def one(p):
    try: load_audio(p)
    except SoundError: pass
one(sys.argv[1])
threads = [threading.Thread(target=one, args=[sys.argv[1]]) for _ in range(8)]
for t in threads: t.start()
for t in threads: t.join()
print('still here', file=sys.stderr)
"""


def test_decoders_do_not_clutter_the_screen(tmp_path, song):
    (tmp_path / "a.mp3").write_bytes(sounds._hole(sounds.encode(song, 22050, "mp3 vbr")))
    bare = subprocess.run([sys.executable, "-c", "import soundfile, sys\ntry: soundfile.read(sys.argv[1])\nexcept soundfile.LibsndfileError: pass", tmp_path / "a.mp3"], capture_output=True, text=True, check=True)
    assert "Note:" in bare.stderr, "this file would be noisy"
    ours = subprocess.run([sys.executable, "-c", NOISY, tmp_path / "a.mp3"], capture_output=True, text=True, check=True)
    assert (ours.stdout, ours.stderr) == ("", "still here\n")


# ---- ffmpeg


@pytest.fixture(scope="module")
def others(tmp_path_factory, song):
    "The song in formats that libsndfile does not know"
    folder = tmp_path_factory.mktemp("others")
    put(folder / "song.wav", np.stack([song, 0.5 * song], 1), 22050)
    made = {"a.m4a": [], "fast.m4a": ["-movflags", "+faststart"], "alac.m4a": ["-c:a", "alac"], "a.aac": [], "a.wma": [], "a.mka": ["-c:a", "libvorbis"], "speex.ogg": ["-ar", "16000", "-ac", "1", "-c:a", "libspeex"], "a.wv": [], "swf.wav": ["-c:a", "adpcm_swf"]}
    for name, options in made.items():
        subprocess.run(["ffmpeg", "-v", "error", "-i", folder / "song.wav", *options, folder / name], stdin=subprocess.DEVNULL, check=name not in ("speex.ogg", "a.mka"))  # some builds lack a codec
    subprocess.run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=d=14:s=64x64", "-i", folder / "song.wav", "-c:v", "mpeg4", folder / "video.mp4"], stdin=subprocess.DEVNULL, check=True)
    subprocess.run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=d=1:s=64x64", "-c:v", "mpeg4", folder / "mute.mp4"], stdin=subprocess.DEVNULL, check=True)
    return folder


def shift(y, truth, most):
    "By how many samples y is late; `most` at most"
    n = min(len(y), len(truth)) - 2 * most
    return max(range(-most, most + 1), key=lambda k: float(y[most + k : most + k + n] @ truth[most : most + n]))


@needs_ffmpeg
@pytest.mark.parametrize("name, least, padding_s", [("a.m4a", 0.99, 0.05), ("fast.m4a", 0.99, 0.05), ("alac.m4a", 0.99999, 0), ("a.aac", 0.99, 0.1), ("a.wma", 0.99, 0.05), ("a.mka", 0.99, 0.02), ("speex.ogg", 0.9, 0.05), ("a.wv", 0.99999, 0), ("swf.wav", 0.98, 0.05), ("video.mp4", 0.99, 0.05)])
def test_ffmpeg_formats(others, song, name, least, padding_s):
    if not (others / name).exists() or not (others / name).stat().st_size:
        pytest.skip("this ffmpeg cannot write it")
    info, y = sound_info(others / name), load_audio(others / name)
    truth = song * (0.75 if info.channels == 2 else 1)
    assert abs(info.dur_s - 10) <= padding_s and abs(len(y) / 22050 - 10) <= padding_s
    late = shift(y, truth, 2500)
    a, b = y[max(0, late) :], truth[max(0, -late) :]
    n = min(len(a), len(b))
    assert np.corrcoef(a[:n], b[:n])[0, 1] > least and abs(late) <= padding_s * 22050
    whole = load_audio(others / name, info.sr)
    for seed in (0, 4):
        start, _ = decode._part(open_sound(others / name), info.sr, 1.0, "random", seed)
        part = load_audio(others / name, info.sr, 1.0, "random", seed)
        off = shift(part, whole[start : start + len(part)], 2500)
        assert off == 0 or (name in ("a.wma", "a.mka") and abs(off) < 0.1 * info.sr), (seed, off)  # these two jump to packets
        inner = whole[start - off + 3000 :][: len(part) - 6000]
        assert np.corrcoef(inner, part[3000:-3000])[0, 1] > 0.999


@needs_ffmpeg
@pytest.mark.parametrize("name", ["-i", "pipe:0", "http:a.m4a", "%d.m4a", "a\nb.m4a", "concat:a|b"])
def test_odd_names_for_ffmpeg(others, tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes((others / "a.m4a").read_bytes())
    assert reason(name, dur_s=1.0) == ""


@needs_ffmpeg
def test_a_short_file_that_says_it_is_longer(tmp_path, song):
    "The header of a wma counts what the encoder puts in front, here a tenth"
    put(tmp_path / "a.wav", song[:11025], 22050)
    subprocess.run(["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", tmp_path / "a.wma"], stdin=subprocess.DEVNULL, check=True)
    assert sound_info(tmp_path / "a.wma").dur_s > 1.03 * len(load_audio(tmp_path / "a.wma")) / 22050


@needs_ffmpeg
def test_ffmpeg_damage(others, tmp_path):
    def cut(name, share=0.5, to=None):
        data = (others / name).read_bytes()
        (tmp_path / (to or name)).write_bytes(data[: int(len(data) * share)])
        return tmp_path / (to or name)

    assert [reason(cut(n)) for n in ("a.m4a", "fast.m4a", "video.mp4", "a.wma", "a.wv")] == ["corrupt"] * 5
    assert reason(cut("fast.m4a"), dur_s=1.0, where="start") == "corrupt"  # by the promise of its boxes
    assert reason(cut("a.m4a", 1, "a.mp3")) == "mislabelled" and reason(cut("a.m4a", 1, "a.unknown")) == ""
    assert reason(others / "mute.mp4") == "no decoder"
    (tmp_path / "x.m4a").write_bytes(np.random.default_rng(0).bytes(9999))
    (tmp_path / "x.bin").write_bytes(b"\0" + np.random.default_rng(0).bytes(9999))
    assert reason(tmp_path / "x.m4a") == "corrupt" and reason(tmp_path / "x.bin") == "no decoder"


@needs_ffmpeg
def test_a_chained_ogg_is_read_to_its_end(tmp_path, song):
    "Radio is recorded like this: one stream after another in one file; libsndfile reads only one"
    (tmp_path / "a.ogg").write_bytes(sounds.encode(song, 22050, "vorbis") + sounds.encode(song[: 3 * 22050], 22050, "vorbis"))
    y = load_audio(tmp_path / "a.ogg")
    assert abs(len(y) / 22050 - 13) < 0.1 and np.corrcoef(y[: len(song)], song)[0, 1] > 0.99
    assert len(load_audio(tmp_path / "a.ogg", dur_s=2.0)) == 44100


@pytest.mark.parametrize("text", ["#EXTM3U\n#EXTINF:9,\nfile://{}\n", "#EXTM3U\n#EXTINF:9,\nhttp://127.0.0.1:{port}/a.mp3\n", "ffconcat version 1.0\nfile '{}'\n", "v=0\nc=IN IP4 127.0.0.1\nm=audio {port} RTP/AVP 0\n", "[playlist]\nFile1=http://127.0.0.1:{port}/\n", "<?xml version='1.0'?><MPD><BaseURL>http://127.0.0.1:{port}/</BaseURL></MPD>"])
@pytest.mark.parametrize("suffix", ["mp3", "m4a", "wav", "m3u8", "sdp", "mpd", "txt", "ffconcat"])
def test_a_list_of_addresses_is_no_song(tmp_path, song, text, suffix, monkeypatch):
    import socket

    private = put(tmp_path / "private.wav", song, 22050)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(0)
        (tmp_path / f"a.{suffix}").write_text(text.replace("{}", str(private)).replace("{port}", str(server.getsockname()[1])))
        assert reason(tmp_path / f"a.{suffix}") in ("mislabelled", "no decoder", "corrupt")
        with pytest.raises(BlockingIOError):
            server.accept()  # nobody called


@needs_ffmpeg
def test_ffmpeg_is_told_what_it_may_open(tmp_path, song):
    "Without these two lists the same files are opened"
    put(tmp_path / "private.wav", song, 22050)
    (tmp_path / "list.ffconcat").write_text("ffconcat version 1.0\nfile private.wav\n")
    bare = ["ffprobe", "-v", "quiet", "-of", "json", "-show_streams"]
    assert b"pcm_s16le" in subprocess.run([*bare, tmp_path / "list.ffconcat"], stdout=subprocess.PIPE, check=True).stdout, "an ordinary ffmpeg follows it"
    stream, container = containers._probe(tmp_path / "list.ffconcat")
    assert not stream and "format_name" not in container


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands in for ffmpeg")
def test_an_ffmpeg_that_hangs_is_stopped(tmp_path, monkeypatch, song):
    (tmp_path / "bin").mkdir()
    streams = '{"streams": [{"codec_type": "audio", "codec_name": "aac", "sample_rate": "22050", "channels": 1, "duration": "9"}], "format": {"format_name": "mov"}}'
    for name, script in (("ffmpeg", "exec sleep 600"), ("ffprobe", f"echo '{streams}'")):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin") + os.pathsep + os.environ["PATH"])
    monkeypatch.setattr(containers, "PATIENCE_S", 0.3)
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x10ftypM4A \0\0\0\0\0\0\0\x08moov")
    assert reason(tmp_path / "a.m4a") == "corrupt"
    (tmp_path / "bin" / "ffprobe").write_text("#!/bin/sh\nexec sleep 600\n")
    assert reason(tmp_path / "a.m4a") == "corrupt"


def test_without_ffmpeg(tmp_path, monkeypatch):
    monkeypatch.setattr(containers, "has_ffmpeg", lambda: False)
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x10ftypM4A \0\0\0\0\0\0\0\x08moov")
    (tmp_path / "a.bin").write_bytes(b"\0" * 999)
    assert reason(tmp_path / "a.m4a") == "no decoder" and reason(tmp_path / "a.bin") == "no decoder"
    with pytest.raises(SoundError, match="Install ffmpeg"):
        sound_info(tmp_path / "a.m4a")


# ---- anything at all

SUFFIXES = ["wav", "mp3", "flac", "ogg", "aiff", "au", "caf"]


def _seed_files():
    "One short file of every kind"
    y = sounds.tune_sound(list(sounds._tunes())[3], 8000, 0.5)
    return {k: sounds.encode(y, 8000, k) for k in sounds.KINDS}


SEEDS = {}


@st.composite
def damaged_files(draw):
    "A suffix and bytes: random, or of a real file with bits flipped, cut, or a stretch overwritten"
    SEEDS.update(SEEDS or _seed_files())
    if draw(st.integers(0, 4)) == 0:
        return draw(st.sampled_from(SUFFIXES)), draw(st.binary(min_size=0, max_size=2000))
    kind = draw(st.sampled_from(sorted(SEEDS)))
    data = bytearray(SEEDS[kind])
    for _ in range(draw(st.integers(0, 8))):
        at = draw(st.one_of(st.integers(0, 99), st.integers(0, len(data) - 1)))
        data[min(at, len(data) - 1)] ^= draw(st.integers(1, 255))
    if draw(st.booleans()):
        del data[draw(st.integers(0, len(data))) :]
    if draw(st.booleans()):
        at = draw(st.integers(0, len(data)))
        data[at : at + 64] = draw(st.binary(max_size=64))
    return sounds.KINDS[kind][0], bytes(data)


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    return tmp_path_factory.mktemp("desk")


@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large])
@given(damaged_files())
def test_any_bytes_give_sound_or_a_reason(desk, file):
    suffix, data = file
    path = desk / f"x.{suffix}"
    path.write_bytes(data)
    first = reason(path)
    assert reason(path) == first  # and always the same
    if not first:
        assert len(load_audio(path, dur_s=0.2)) <= 4410
