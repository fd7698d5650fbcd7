"""How many children a cluster runs at the same time, and what each of them takes."""

from swinft.errors import InputError
from swinft.system.cluster.environment import CPUS, GPUS, SLOTS_ON_NODE
from swinft.system.cluster.remote import connected


def cluster_slots(on: str, gpus: int, num_waiting: int, on_cpu: bool = True) -> list[dict[str, str]]:
    """The slots of a cluster for children that take some GPUs each, or without GPUs the CPUs of a node.

    Args:
        on: The cluster.
        gpus: GPUs of a child; 0 for one that computes on CPUs.
        num_waiting: Children that wait.
        on_cpu: Whether children were asked to compute on CPUs; otherwise GPUs that this machine lacks are an error.

    Returns:
        One entry per child that can run at the same time, at most `num_waiting`.

    Raises:
        InputError: No node has as many GPUs, or only the nodes have some.
    """
    nodes = connected(on).nodes()
    shown = "; ".join(f"{node.name}: {node.cpus:g} CPUs, {node.gpus:g} GPUs" for node in nodes) or "none"
    if not (gpus or on_cpu) and any(node.gpus for node in nodes):
        raise InputError(
            f"the cluster has GPUs, and this machine has none, on which precision and attention are chosen: start the "
            f"command on a node with a GPU, or add --trainer.accelerator cpu. The nodes are {shown}."
        )
    fitting = [node for node in nodes if (node.gpus >= gpus if gpus else node.cpus >= 1)]
    if not fitting:
        wanted = f"{gpus} GPU(s)" if gpus else "a CPU"
        raise InputError(f"no node of the cluster has {wanted} for a child. The nodes are {shown}.")
    cpus = min(node.cpus // (node.gpus // gpus if gpus else 1) for node in fitting)
    on_node = [int(node.gpus // gpus if gpus else node.cpus // cpus) for node in fitting]
    slot = {GPUS: str(gpus), CPUS: f"{cpus:g}", SLOTS_ON_NODE: str(max(on_node))}
    return [dict(slot) for _ in range(max(1, min(sum(on_node), num_waiting)))]
