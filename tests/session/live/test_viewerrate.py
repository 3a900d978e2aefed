"""What a viewer's estimates say about the bit rate it can take."""

from lipwire.session.live.viewerrate import ViewerRate

MOST = 1_500_000


def test_an_estimate_above_what_is_sent_is_no_limit() -> None:
    rate = ViewerRate()
    rate.estimated(160_000, sent=120_000, most=MOST, now=0)
    assert rate.limit is None


def test_an_estimate_below_what_is_sent_is_one() -> None:
    rate = ViewerRate()
    rate.estimated(400_000, sent=900_000, most=MOST, now=0)
    assert rate.limit == 400_000


def test_a_limit_is_raised_when_nothing_has_queued_up_for_some_time() -> None:
    rate = ViewerRate()
    rate.estimated(400_000, sent=900_000, most=MOST, now=0)
    rate.estimated(420_000, sent=390_000, most=MOST, now=9)
    assert rate.limit == 400_000
    rate.estimated(420_000, sent=390_000, most=MOST, now=10)
    assert rate.limit == 800_000
    rate.estimated(850_000, sent=790_000, most=MOST, now=20)
    assert rate.limit is None


def test_packets_that_queue_up_again_hold_the_limit() -> None:
    rate = ViewerRate()
    rate.estimated(400_000, sent=900_000, most=MOST, now=0)
    rate.estimated(300_000, sent=390_000, most=MOST, now=9)
    rate.estimated(310_000, sent=290_000, most=MOST, now=18)
    assert rate.limit == 300_000
