"""Sizes of the experiments."""

from dataclasses import dataclass

SIDE = 29

PART = 26_000
"""Bogus simulated at a time, and kept on disk."""


@dataclass(frozen=True)
class Scale:
    """Sizes of an experiment.

    Args:
        reals: Detections to learn from.
        bogus: Those of nothing.
        test_reals: Detections to test on.
        test_bogus: Those of nothing.
        sensors: Of the camera.
        each: How many of them get a network of their own in row 1.
        simple: Width of the simple network.
        complex: Width of the complex one.
        steps: Of the simple network and of VGG6, 64 stamps each here and below.
        noise: Of the simple network in the noise experiments.
        few: Of it where it learns from the stamps of one sensor.
        deep: Of the complex network.
        heart: Stamps and steps of the training by heart.
        shares: Whether each seed of the table scores its own share of the bogus.
        visits: Exposures of a field.
    """

    reals: int
    bogus: int
    test_reals: int
    test_bogus: int
    sensors: int
    each: int
    simple: int
    complex: int
    steps: int
    noise: int
    few: int
    deep: int
    heart: tuple[int, int]
    shares: bool = True
    visits: int = 6


SCALES = {
    "tiny": Scale(900, 1200, 300, 2000, 4, 2, 16, 4, 120, 80, 40, 30, (600, 200), visits=2),
    "quick": Scale(1200, 1600, 300, 2500, 8, 2, 16, 4, 150, 40, 40, 30, (500, 80), visits=3),
    "small": Scale(3000, 4000, 500, 6000, 8, 3, 16, 4, 500, 300, 100, 150, (2000, 500)),
    "laptop": Scale(10_000, 14_000, 2000, 102_000, 8, 3, 16, 8, 800, 800, 200, 600, (6000, 1000)),
    "medium": Scale(
        40_000, 60_000, 3000, 102_000, 20, 20, 32, 16, 8000, 8000, 800, 6000, (20_000, 9000), False
    ),
    "paper": Scale(
        1_200_000, 2_000_000, 3000, 255_000, 84, 84, 32, 32, 200_000, 200_000, 20_000, 400_000,
        (200_000, 200_000), False,
    ),
}  # fmt: skip

RATES = {"simple": 8e-3, "vgg6": 8e-3, "complex": 6e-3}
"""Highest learning rate of each network; 64 stamps a step."""

SHARE = 0.25
"""Of a batch that the smoothness is taken over: the same mean at two thirds of the cost."""
