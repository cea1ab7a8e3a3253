"""Imported last by the process that others are forked from: what each of them would otherwise do by itself."""

import atexit
import os

from pipeline.core.kernels.perceptron import logarithm

logarithm(1.0)  # numba sets itself up at the first call of a loop, which takes half a second
atexit.register(os._exit, 0)  # this process ends at once, without taking PyTorch down in order
