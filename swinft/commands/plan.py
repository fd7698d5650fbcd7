"""`swinft plan`: the time, the memory and the GPU hours of a config's whole run, before it starts."""

from swinft.run.plan.plan import plan_from_argv


def main(argv: list[str]) -> int:
    """`swinft plan --config FILE --gpus 8xA100`."""
    plan_from_argv(argv)
    return 0
