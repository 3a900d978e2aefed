import numpy as np

from lipwire.audio import AudioEncoder, extract_windows, silence_window


def test_every_frame_in_the_middle_of_silence_has_the_same_window(encoder: AudioEncoder) -> None:
    windows = extract_windows(np.zeros(75 * 640, np.float32), encoder)
    silence = silence_window(encoder)
    assert silence.shape == (32, 16, 16)
    assert silence.dtype == np.float32
    same = [np.array_equal(window, silence) for window in windows]
    assert all(same[8:-8])
    assert not same[0]
    assert not same[-1]
