"""What the contracts of several families feed to a component and to its slow twin."""

import torch


def unequal_vectors(*shape, seed=0, dtype=torch.float64):
    """Random rows ``[*shape]`` without ties, each with an offset and a spread of its own."""
    stream = torch.Generator().manual_seed(seed)

    def normal(*size):
        return torch.randn(*size, generator=stream, dtype=torch.float64)

    rows = (*shape[:-1], 1)
    return (normal(*shape) * (0.5 * normal(*rows)).exp() + 0.3 * normal(*rows) + 0.5).to(dtype)


def draw_from(stream):
    """The ``draw`` of a slow twin: numbers of the first replica of ``stream``, as a list."""

    def draw(kind, count, *forks):
        forked = stream
        for number in forks:
            forked = forked.fork(number)
        return getattr(forked, kind)(count)[0].tolist()

    return draw


def example(cls, **fields):
    """A component with its defaults; a parameter without one takes the first of its examples."""
    required = {name: field for name, field in cls.model_fields.items() if field.is_required() and name not in fields}
    lacking = [name for name, field in required.items() if not field.examples]
    assert not lacking, f"{cls.__name__}: {lacking} should have a default or an example, as Field(examples=[0.3])"
    return cls.model_validate({name: field.examples[0] for name, field in required.items()} | fields)


def examples(registry):
    """An example of every registered component, by its name."""
    return {name: example(registry[name]) for name in registry.names}
