"""One gradient, or the way back from some local steps of PyTorch's own SGD."""

import torch


def gradient(loss, params, inputs, labels):
    leaf = params.clone().requires_grad_()
    value = loss(leaf, inputs, labels)
    value.backward()
    return leaf.grad, value.item()


def local_sgd(loss, params, inputs, labels, steps, learning_rate):
    local, seen = torch.nn.Parameter(params.clone()), []
    optimizer = torch.optim.SGD([local], lr=learning_rate)
    for images, targets in zip(inputs.chunk(steps), labels.chunk(steps), strict=True):
        optimizer.zero_grad()
        value = loss(local, images, targets)
        value.backward()
        optimizer.step()
        seen.append(value.item())
    return params - local.detach(), sum(seen) / steps
