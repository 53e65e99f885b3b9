"""A network whose backbone computes in float16, for targets whose runtime runs a graph as it is."""

from __future__ import annotations

from torch import Tensor, nn

from landmarks_fastai.networks.build import PixelNetwork


class HalfBackbone(nn.Module):
    """A backbone that computes in float16 from a float32 input, and whose outputs are float32.

    Parameters
    ----------
    backbone
        Maps (B, C, S, S) images to its stages; it is changed to float16.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone.half()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the stages, float32."""
        return tuple(stage.float() for stage in self.backbone(image.half()))


def halve_backbone(network: PixelNetwork) -> PixelNetwork:
    """Change the backbone of a network to float16, in place, and return the network.

    The head, whose softmax and sums give the coordinates, stays in float32, as in training.
    """
    assert isinstance(network.network, nn.Sequential)
    backbone, head = network.network[0], network.network[1]
    network.network = nn.Sequential(HalfBackbone(backbone), head).eval()
    return network
