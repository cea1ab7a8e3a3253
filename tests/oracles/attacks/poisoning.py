"""Byzantine workers that follow the protocol: honestly, or on poisoned labels."""


def none(labels, classes):
    return list(labels)


def label_flip(labels, classes):
    return [classes - 1 - label for label in labels]


def bit_flip(labels, classes):
    return list(labels)
