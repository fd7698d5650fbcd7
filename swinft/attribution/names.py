"""Names of methods and of their settings, without imports, so that the command line's help is fast."""

from typing import Literal

Method = Literal["gradcam", "rollout", "windows", "integrated-gradients", "occlusion"]
RolloutBy = Literal["mean", "gradient"]
BaselineName = Literal["mean", "black", "white", "blur"]
