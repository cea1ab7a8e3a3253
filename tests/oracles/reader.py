"""Layers as plain functions that read a flat parameter vector from front to back."""

from math import prod

from torch.nn.functional import conv2d


class Reader:
    """Hands out the next parameters in a wanted shape."""

    def __init__(self, params):
        self.params, self.position = params, 0

    def __call__(self, *shape):
        self.position += prod(shape)
        return self.params[self.position - prod(shape) : self.position].view(shape)

    def linear(self, signal, outputs):
        return signal @ self(outputs, signal.shape[1]).T + self(outputs)

    def conv(self, signal, outputs, side, stride=1, padding=0, bias=True):
        weight = self(outputs, signal.shape[1], side, side)
        return conv2d(signal, weight, self(outputs) if bias else None, stride, padding)

    def normalise(self, signal):
        images, channels, *_ = signal.shape
        size = 2 if channels <= 64 else channels // 32
        grouped = signal.reshape(images, channels // size, -1)
        centred = grouped - grouped.mean(dim=-1, keepdim=True)
        scaled = centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
        scale, shift = self(channels, 1, 1), self(channels, 1, 1)
        return scaled.view(signal.shape) * scale + shift
