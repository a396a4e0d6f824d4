"""Names and options of the samples, in a module without heavy imports so that `splitc sample --help` is fast."""

from typing import Final, Literal

SampleName = Literal["regnet_y_400mf", "regnet_y_4gf", "stable_diffusion", "tiny_cnn", "tiny_diffusion"]
SchedulerName = Literal["ddim", "euler"]

TINY_DIFFUSION: Final = "tiny_diffusion"
TINY_DIFFUSION_TIMES = 8
STABLE_DIFFUSION: Final = "stable_diffusion"
STABLE_DIFFUSION_TIMES = 50
STABLE_DIFFUSION_WIDTH = 0.5
STABLE_DIFFUSION_SIZE = 512

TRAINING_STEPS = 1000
MAX_TIMES = TRAINING_STEPS - 1
