"The front end against librosa for lengths, windows, hops and bands that nobody chose"
import warnings

import librosa
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from geomusic.files import InputError
from geomusic.sound.analysis import Analysis, empty_bands
from geomusic.sound.frontend import OUTPUTS, TOLERANCE, FrontEnd, spectra

WINDOWS = st.integers(64, 1024).map(lambda n: 2 * n)


def analysis(sr, n_fft, hop, n_mels):
    return Analysis(sr=sr, n_fft=n_fft, hop_length=hop, n_mels=n_mels, n_mfcc=min(13, n_mels), seq_hop_s=hop / sr)


def by_librosa(y, a):
    k, sr, f = dict(y=y, n_fft=a.n_fft, hop_length=a.hop_length), dict(sr=a.sr), librosa.feature
    mel = f.melspectrogram(**k, **sr, n_mels=a.n_mels)
    return dict(power=np.abs(librosa.stft(**k)) ** 2, mel_power=mel, melspec=librosa.power_to_db(mel), mfcc=f.mfcc(**k, **sr, n_mfcc=a.n_mfcc, n_mels=a.n_mels),
                chroma=f.chroma_stft(**k, **sr, tuning=0.0), onset=librosa.onset.onset_strength(**k, **sr, n_mels=a.n_mels), rms=f.rms(y=y, frame_length=a.n_fft, hop_length=a.hop_length)[0],
                centroid=f.spectral_centroid(**k, **sr)[0], bandwidth=f.spectral_bandwidth(**k, **sr)[0], flatness=f.spectral_flatness(**k)[0])  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(sr=st.sampled_from([8000, 16000, 22050, 44100]), n_fft=WINDOWS, part=st.floats(0.05, 1), n_mels=st.integers(1, 128), n=st.integers(1, 6000), level=st.sampled_from([1, 1e-2, 1e-4]),
       seed=st.integers(0, 99))  # fmt: skip
def test_any_numbers_and_any_length_agree_with_librosa(sr, n_fft, part, n_mels, n, level, seed):
    hop = max(1, int(part * n_fft))
    assume(not empty_bands(sr, n_fft, n_mels) and hop >= 8)
    a = analysis(sr, n_fft, hop, n_mels)
    y = np.float32(level * np.random.default_rng(seed).standard_normal(n))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # librosa on sounds shorter than a window
        want = by_librosa(y, a)
    got = spectra(y, a)
    assert set(got) == set(OUTPUTS)
    for o, w in want.items():
        assert got[o].shape == w.shape, o
        scale = np.abs(w).max() if o in ("power", "mel_power", "rms") else 1
        loose = 10 if o == "flatness" else 1  # a short window may hold a frequency that is 0 by chance, and flatness takes its logarithm
        assert np.abs(got[o] - w).max() <= loose * TOLERANCE[o] * scale, o


@settings(max_examples=60, deadline=None)
@given(sr=st.integers(4000, 96000), n_fft=WINDOWS, n_mels=st.integers(1, 300))
def test_an_analysis_is_refused_exactly_if_a_filter_of_librosa_is_empty(sr, n_fft, n_mels):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        filters = librosa.filters.mel(sr=sr, n_fft=n_fft, n_mels=n_mels)
    empty = int((filters.max(1) < 1e-9 * filters.max()).sum())  # rounding leaves specks in some bands without a frequency
    if not empty:
        assert analysis(sr, n_fft, n_fft // 2, n_mels).n_mels == n_mels
    else:
        with pytest.raises(InputError, match=f"{empty} of n_mels={n_mels}"):
            analysis(sr, n_fft, n_fft // 2, n_mels)


@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 70_000), size=st.integers(2, 5), outputs=st.lists(st.sampled_from(OUTPUTS), min_size=1, unique=True), seed=st.integers(0, 99))
def test_the_numbers_of_a_clip_do_not_depend_on_its_batch(n, size, outputs, seed):
    front, batch = FrontEnd(), torch.from_numpy(np.float32(np.random.default_rng(seed).standard_normal((size, n))))
    together = front(batch, tuple(outputs))
    for i, clip in enumerate(batch):
        alone = front(clip, OUTPUTS)
        assert all(torch.equal(together[o][i], alone[o]) for o in outputs)


def test_knowing_the_numbers_does_not_load_torch_or_librosa():
    import subprocess
    import sys

    code = "import sys, geomusic.sound.analysis as m; m.Analysis(); assert not {'torch', 'librosa', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
