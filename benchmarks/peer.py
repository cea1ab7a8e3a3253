"""The section ``peer``: the same training in ByzFL 0.0.11, with its own classes, as its documentation shows."""

import importlib.util
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.document import Row
from benchmarks.steps import in_turns_with
from benchmarks.timing import Action, Conditions
from benchmarks.workloads import RATE, SHARE, Workload, mnist, mnist_models
from pipeline.core.errors import UserError
from pipeline.data.dataset import Dataset

TITLE = "A step of ByzFL on the same workload"
METHOD = (
    "The step of `step`, divided by R, and ByzFL 0.0.11: its `Client`, `ByzantineClient` and `Server` in the loop of "
    "its `benchmark.train`, without evaluations, on the same random images in memory (`TensorDataset`, "
    "no transformation), with its models of the same sizes (its logistic regression has an extra sigmoid). "
    "One process, the same number of threads, in turns; ratio of medians."
)
MODELS = {"cnn": "cnn_mnist", "mlp": "fc_mnist", "logistic": "logreg_mnist"}
TAU = 1.5  # of ALIE, as in the workload


def measure(conditions: Conditions) -> Iterator[Row]:
    """Yield one row per model and R, at the sizes of ByzFL's models.

    Raises:
        UserError: ByzFL is not installed.
    """
    if importlib.util.find_spec("byzfl") is None:
        raise UserError("ByzFL is not installed; `pip install -e '.[peer]'` brings it")
    for name, model in mnist_models(tiny=False).items():
        workload = mnist(model, conditions.tiny)
        byzfl = byzfl_step(MODELS[name], workload, conditions.device)
        for number, ours, other in in_turns_with(byzfl, workload, conditions):
            yield {
                "model": name,
                "R": number,
                "ours ms a replica": ours,
                "ByzFL ms": other,
                "ByzFL / ours": other / ours,
            }


def byzfl_step(model: str, workload: Workload, device: torch.device) -> Action:
    """Return an action that does one round of ByzFL's DSGD per call."""
    from byzfl import ByzantineClient

    dataset, f = workload.dataset(), workload.threat.byzantine
    clients, server = _clients(model, workload, dataset, device), _server(model, dataset, f, device)
    byzantine = ByzantineClient({"name": "ALittleIsEnough", "f": f, "parameters": {"tau": TAU}})

    def action() -> None:
        torch.backends.mkldnn.set_flags(True)  # type: ignore[no-untyped-call]
        for client in clients:
            client.compute_gradients()
        honest = [client.get_flat_gradients_with_momentum() for client in clients]
        server.update_model_with_gradients(honest + byzantine.apply_attack(honest))
        for client in clients:
            client.set_model_state(server.get_dict_parameters())

    return action


def _clients(model: str, workload: Workload, dataset: Dataset, device: torch.device) -> list[Any]:
    from byzfl import Client

    honest = workload.threat.honest
    shares = torch.arange(honest * SHARE).chunk(honest)
    return [
        Client(
            {
                "model_name": model,
                "device": device.type,
                "optimizer_name": "SGD",
                "learning_rate": RATE,
                "loss_name": "CrossEntropyLoss",
                "weight_decay": 0.0,
                "milestones": [],
                "learning_rate_decay": 1.0,
                "LabelFlipping": False,
                "training_dataloader": _loader(dataset, share, workload.batch_size),
                "momentum": 0.9,
                "nb_labels": dataset.classes,
                "store_per_client_metrics": False,
            }
        )
        for share in shares
    ]


def _server(model: str, dataset: Dataset, f: int, device: torch.device) -> Any:
    from byzfl import Server

    return Server(
        {
            "model_name": model,
            "device": device.type,
            "test_loader": _loader(dataset, torch.arange(1), 1),
            "optimizer_name": "SGD",
            "learning_rate": RATE,
            "weight_decay": 0.0,
            "milestones": [],
            "learning_rate_decay": 1.0,
            "aggregator_info": {"name": "TrMean", "parameters": {"f": f}},
            "pre_agg_list": [{"name": "NNM", "parameters": {"f": f}}],
        }
    )


def _loader(dataset: Dataset, members: torch.Tensor, batch_size: int) -> Any:
    """Return a loader of some training images."""
    images = TensorDataset(dataset.train.inputs[members], dataset.train.labels[members])
    return DataLoader(images, batch_size=batch_size, shuffle=True)
