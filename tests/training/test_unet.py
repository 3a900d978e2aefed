"""The mouth renderer's network."""

import pytest

torch = pytest.importorskip("torch")

from lipwire.domain import InvalidInput  # noqa: E402
from lipwire.training.unet import (  # noqa: E402
    AudioConvolutions,
    Clipped,
    LipUNet,
    UNetConfig,
)

torch.set_num_threads(1)

TINY = (4, 4, 8, 8)


def stirred(network: LipUNet) -> LipUNet:
    """As after some training: the last layer no longer starts from nothing."""
    torch.nn.init.normal_(network.leave.weight, std=0.5)
    torch.nn.init.normal_(network.leave.bias, std=0.5)
    return network


def test_an_untrained_network_copies_the_real_crop() -> None:
    network = LipUNet(UNetConfig(TINY))
    crop = torch.rand(1, 6, 320, 320)

    made = network.forward_controls(crop, torch.rand(1, 6))

    assert torch.equal(made, crop[:, :3])


def test_the_base_of_a_persons_video_is_the_masked_crop() -> None:
    network = LipUNet(UNetConfig(TINY, base="masked"))
    crop = torch.rand(1, 6, 320, 320)

    assert torch.equal(network.forward_controls(crop, torch.rand(1, 6)), crop[:, 3:])


def test_controls_change_the_picture() -> None:
    network = stirred(LipUNet(UNetConfig(TINY)))
    crop = torch.rand(1, 6, 320, 320).expand(2, -1, -1, -1)

    shut, wide_open = network.forward_controls(crop, torch.tensor([[0.0] * 6, [1.0] * 6]))

    assert (shut - wide_open).abs().max() > 1e-3


def test_the_residual_fades_at_the_edges_so_that_no_seam_shows() -> None:
    network = stirred(LipUNet(UNetConfig(TINY)))
    crop = torch.rand(1, 6, 320, 320)

    change = (network.forward_controls(crop, torch.rand(1, 6)) - crop[:, :3]).abs()

    for edge in (change[..., 0, :], change[..., -1, :], change[..., :, 0], change[..., :, -1]):
        assert edge.max() == 0
    assert change[..., 160, 160].max() > 0


def test_outside_its_window_the_network_copies() -> None:
    network = stirred(LipUNet(UNetConfig(TINY, window=(64, 48, 128, 160))))
    crop = torch.rand(1, 6, 320, 320)

    change = (network.forward_controls(crop, torch.rand(1, 6)) - crop[:, :3]).abs()

    assert change[:, :, 64:192, 48:208].max() > 0
    change[:, :, 64:192, 48:208] = 0
    assert change.max() == 0


def test_a_part_of_the_window_sees_its_own_place() -> None:
    network = stirred(LipUNet(UNetConfig(TINY)))
    torch.nn.init.normal_(network.place20)
    part = torch.rand(1, 6, 64, 96)

    here = network.residual(part, torch.zeros(1, 6), (32, 48))
    there = network.residual(part, torch.zeros(1, 6), (160, 48))
    corner = network.residual(part, torch.zeros(1, 6))

    assert not torch.equal(here, there)
    assert corner[..., 0, :].abs().max() == 0
    assert here[..., 0, :].abs().max() > 0


def test_speech_reaches_the_picture_through_the_audio_branch() -> None:
    branch = AudioConvolutions(6)
    network = stirred(LipUNet(UNetConfig(TINY), branch))
    crop, audio = torch.rand(1, 6, 320, 320), torch.randn(1, 32, 16, 16)

    assert torch.equal(network(crop, audio), network.forward_controls(crop, branch(audio)))


def test_without_an_audio_branch_speech_is_refused() -> None:
    with pytest.raises(ValueError, match="no audio branch"):
        LipUNet(UNetConfig(TINY))(torch.rand(1, 6, 320, 320), torch.rand(1, 32, 16, 16))


def test_the_shipped_network_stays_within_zero_and_one() -> None:
    network = stirred(LipUNet(UNetConfig(TINY), AudioConvolutions(6)))
    torch.nn.init.constant_(network.leave.bias, 5.0)

    made = Clipped(network)(torch.rand(1, 6, 320, 320), torch.randn(1, 32, 16, 16))

    assert made.min() >= 0
    assert made.max() == 1


@pytest.mark.slow
def test_the_shipped_network_is_the_trained_one_without_cutting_into_blocks() -> None:
    network = stirred(LipUNet(UNetConfig(TINY), AudioConvolutions(6)))
    crop, audio = torch.rand(1, 6, 320, 320), torch.randn(1, 32, 16, 16)

    shipped = Clipped(network)

    # Both sum the same numbers in an order of their own: a hundredth of a level of 255 at most.
    torch.testing.assert_close(
        shipped(crop, audio), network(crop, audio).clamp(0, 1), atol=4e-5, rtol=0
    )
    assert not any(isinstance(part, torch.nn.PixelUnshuffle) for part in shipped.modules())


@pytest.mark.parametrize(
    "window", [(0, 0, 320, 336), (8, 0, 160, 160), (-16, 0, 160, 160), (0, 0, 0, 16)]
)
def test_a_window_that_cannot_work_is_refused(window: tuple[int, int, int, int]) -> None:
    with pytest.raises(InvalidInput, match="multiples of 16"):
        UNetConfig(TINY, window=window)


def test_a_configuration_survives_being_written_down() -> None:
    config = UNetConfig(TINY, code_size=9, base="masked", window=(16, 16, 160, 160))

    assert UNetConfig.from_dict(config.to_dict()) == config
