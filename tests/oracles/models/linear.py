"""Linear layers with ReLU between them."""

from torch.nn.functional import relu


def logistic(take, images, classes):
    return take.linear(images.flatten(1), classes)


def mlp(take, images, classes, hidden):
    signal = images.flatten(1)
    for units in hidden:
        signal = relu(take.linear(signal, units))
    return take.linear(signal, classes)
