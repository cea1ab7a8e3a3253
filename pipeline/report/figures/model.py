"""Pictures of a model, drawn by Graphviz: its layers, and how its gradients come about."""

import shutil
import warnings
from collections.abc import Mapping
from subprocess import CalledProcessError
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import torch
from torch.nn.functional import cross_entropy

from pipeline.core.component import parse
from pipeline.core.errors import UserError
from pipeline.data.dataset import Dataset
from pipeline.simulator.models import MODELS, Model

if TYPE_CHECKING:
    from graphviz import Digraph

MISSING = "pictures of a model need {}: pip install '.[pictures]', and Graphviz's `dot` (apt-get install graphviz)"
BATCH = 1  # samples in the pictures
LONGEST = 300  # characters of a cause


class Pictures(NamedTuple):
    """Two graphs; a notebook shows each as it is, and ``layers.render("layers", format="png")`` writes a file.

    Attributes:
        layers: From the input to the logits, each layer with the shapes that it takes and gives.
        gradients: From the loss back to the weights, each by its name and shape.
    """

    layers: "Digraph"
    gradients: "Digraph"


def draw_model(data: Dataset, model: Mapping[str, Any] | Model) -> Pictures:
    """Return pictures of a model, for inputs and classes as ``data`` has them.

    Args:
        data: Of which the shape and the number of classes are used.
        model: A mapping as in params.yaml, such as ``{"name": "mlp", "hidden": [32]}``.

    Raises:
        UserError: Graphviz or a package is missing, or the model cannot take such inputs.
    """
    if shutil.which("dot") is None:
        raise UserError(MISSING.format("Graphviz"))
    try:
        from torchview import draw_graph
        from torchviz import make_dot
    except ImportError as error:
        raise UserError(MISSING.format(error.name)) from None
    chosen: Model = parse(Annotated[Model, MODELS], model, "model")
    module = chosen.network(data.shape, data.classes).module  # it knows shapes alone, and so do the pictures
    inputs = torch.zeros(BATCH, *data.shape, device="meta")
    layers: Digraph = draw_graph(module, input_data=inputs, device="meta", graph_name=chosen.name).visual_graph
    loss = cross_entropy(module(inputs), torch.zeros(BATCH, dtype=torch.long, device="meta"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torchviz compares versions with distutils
        gradients: Digraph = make_dot(loss, params=dict(module.named_parameters()))
    return Pictures(layers, gradients)


def drawn(data: Dataset, model: Model) -> dict[str, bytes]:
    """Return both pictures as SVG files, by name.

    Raises:
        UserError: Something that draws them is missing or fails, or the model computes what depends on values, and not
            on shapes alone.
    """
    try:
        return {f"{name}.svg": graph.pipe(format="svg") for name, graph in draw_model(data, model)._asdict().items()}
    except (CalledProcessError, RuntimeError) as error:  # of Graphviz, of PyTorch and torchview
        raise UserError(f"the model cannot be drawn: {' '.join(str(error).split())[:LONGEST]}") from None
