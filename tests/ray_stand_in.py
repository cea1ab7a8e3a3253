"""A stand-in for Ray, of that part which the project uses: one worker, in this process, when it is waited for."""

import pickle
from itertools import count
from types import SimpleNamespace
from typing import NamedTuple

import cloudpickle


class RayError(Exception):
    pass


class OutOfMemoryError(RayError):
    pass


class WorkerCrashedError(RayError):
    pass


class ObjectLostError(RayError):
    pass


class RayTaskError(RayError):
    pass


class RuntimeEnvSetupError(RayError):
    pass


class Reference(NamedTuple):
    number: int


class Ray:
    """The module ``ray``.

    Attributes:
        faults: What the next tasks end with, instead of their results; None: nothing.
        after: Evaluations that a task that ends with a fault has told before.
        asked: What each task asked for.
        settings: Of ``init``.
    """

    def __init__(self, nodes):
        self._nodes = nodes
        self.faults, self.after, self.asked, self.settings, self.put_there = [], 0, [], None, []
        self._values, self._waiting, self._gpus, self.cancelled = {}, {}, [], []
        self._numbers = count()
        errors = (RayError, OutOfMemoryError, WorkerCrashedError, ObjectLostError, RayTaskError, RuntimeEnvSetupError)
        self.exceptions = SimpleNamespace(**{error.__name__: error for error in errors})
        affinity = SimpleNamespace(NodeAffinitySchedulingStrategy=lambda node, soft: (node, soft))
        self.util, self.cloudpickle = SimpleNamespace(scheduling_strategies=affinity), cloudpickle

    def init(self, **settings):
        self.settings = settings

    def get_runtime_context(self):
        return SimpleNamespace(get_node_id=lambda: "head")

    def nodes(self):
        return [{"Alive": True, "Resources": resources} for resources in self._nodes]

    def get_gpu_ids(self):
        return self._gpus

    def put(self, value):
        self.put_there.append(value)
        return self._kept(pickle.dumps(value))

    def get(self, reference):
        value = pickle.loads(self._values[reference])
        if isinstance(value, RayError):
            raise value
        return value

    def wait(self, references, num_returns=1, timeout=None):
        if timeout != 0 and (todo := [reference for reference in references if reference in self._waiting]):
            self._values[todo[0]] = pickle.dumps(self._waiting.pop(todo[0])())
        ended = [reference for reference in references if reference in self._values]
        return ended[:num_returns], [reference for reference in references if reference not in ended[:num_returns]]

    def cancel(self, reference, force):
        self.cancelled.append(reference)
        self._waiting.pop(reference, None)

    def remote(self, **options):
        return lambda made: _Actor(self, made) if isinstance(made, type) else _Task(self, made)

    def _kept(self, value):
        reference = Reference(next(self._numbers))
        self._values[reference] = value
        return reference


class _Task:
    def __init__(self, ray, function):
        self.ray, self.function = ray, function

    def options(self, **asked):
        self.ray.asked.append(asked)
        return self

    def remote(self, *arguments):
        reference = Reference(next(self.ray._numbers))
        self.ray._waiting[reference] = lambda: self._ended(arguments)
        return reference

    def _ended(self, arguments):
        fault = self.ray.faults.pop(0) if self.ray.faults else None
        *arguments, mailbox = [self.ray.get(one) if isinstance(one, Reference) else one for one in arguments]
        if fault is None:
            return self.function(*arguments, mailbox)
        if self.ray.after:
            self.function(*arguments, _Limited(mailbox, self.ray.after))
        return fault


class _Limited:
    """A mailbox that gets the first letters of a worker only: the worker dies after them."""

    def __init__(self, mailbox, most):
        self._mailbox, self._left = mailbox, most
        self.put = self

    def remote(self, *letter):
        self._left -= 1
        return self._mailbox.put.remote(*letter) if self._left >= 0 else self._mailbox.take.remote([])


class _Actor:
    def __init__(self, ray, made):
        self._ray, self._actor = ray, made()

    def options(self, **_):
        return self

    def remote(self):
        return self

    def __getattr__(self, name):
        method = getattr(self._actor, name)
        return SimpleNamespace(remote=lambda *arguments: self._ray._kept(pickle.dumps(method(*arguments))))
