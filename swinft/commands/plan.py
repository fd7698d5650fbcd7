"""`swinft plan`: the time, the memory and the GPU hours of a config's whole run, before it starts."""

from swinft.json_output import Output
from swinft.run.plan.plan import plan_from_argv


def main(argv: list[str]) -> Output:
    """`swinft plan --config FILE --gpus 8xA100`."""
    plan = plan_from_argv(argv)
    return {} if plan is None else plan.to_dict()
