"""Imported last by the process that was started ahead: it ends at once, without taking PyTorch down in order."""

import atexit
import os

atexit.register(os._exit, 0)
