"""The convolutional networks that are usual in this field."""

from torch.nn.functional import max_pool2d, relu


def cnn_mnist(take, images, classes):
    signal = images
    for outputs in (20, 50):
        signal = max_pool2d(relu(take.conv(signal, outputs, 5)), 2)
    return take.linear(relu(take.linear(signal.flatten(1), 500)), classes)


def cnn_bucketing(take, images, classes, dropout):
    del dropout  # of training alone
    signal = max_pool2d(take.conv(relu(take.conv(images, 32, 3)), 64, 3), 2)
    return take.linear(relu(take.linear(signal.flatten(1), 128)), classes)


def cnn_cifar(take, images, classes):
    signal = images
    for outputs in (64, 128):
        for _ in range(2):
            signal = take.normalise(relu(take.conv(signal, outputs, 3, padding=1)))
        signal = max_pool2d(signal, 2)
    return take.linear(relu(take.linear(signal.flatten(1), 128)), classes)
