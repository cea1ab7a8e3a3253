"""Residual networks for small images."""

from torch.nn.functional import relu


def _resnet(take, images, classes, widths, blocks):
    signal = relu(take.normalise(take.conv(images, widths[0], 3, padding=1, bias=False)))
    for stage, width in enumerate(widths):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            inner = relu(take.normalise(take.conv(signal, width, 3, stride, padding=1, bias=False)))
            inner = take.normalise(take.conv(inner, width, 3, padding=1, bias=False))
            if stride == 2:
                signal = take.normalise(take.conv(signal, width, 1, stride, bias=False))
            signal = relu(inner + signal)
    return take.linear(signal.mean(dim=(2, 3)), classes)


def resnet18(take, images, classes):
    return _resnet(take, images, classes, widths=(64, 128, 256, 512), blocks=2)


def resnet20(take, images, classes):
    return _resnet(take, images, classes, widths=(16, 32, 64), blocks=3)
