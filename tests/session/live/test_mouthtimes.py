from lipwire.session.live.mouthtimes import MouthTimes


def test_the_least_of_the_latest_times_of_each_avatar_is_expected() -> None:
    times = MouthTimes()
    assert times.expected_s("anna") is None
    times.took("anna", 0.05)
    times.took("bert", 0.2)
    times.took("anna", 0.06)
    assert (times.expected_s("anna"), times.expected_s("bert")) == (0.05, 0.2)
    for _ in range(8):
        times.took("anna", 0.07)
    assert times.expected_s("anna") == 0.07


def test_a_busy_moment_is_no_measure() -> None:
    times = MouthTimes()
    for seconds in (0.02, 0.02, 0.216, 0.18):
        times.took("anna", seconds)
    assert times.expected_s("anna") == 0.02


def test_a_thousand_avatars_are_remembered() -> None:
    times = MouthTimes()
    for number in range(1500):
        times.took("often", 0.01)
        times.took(f"avatar {number}", number / 1000)
    assert times.expected_s("avatar 0") is None
    assert times.expected_s("avatar 1499") == 1.499
    assert times.expected_s("often") == 0.01
