"""Everything that a range test changes in PyTorch, kept as it was."""

import copy
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, Protocol, TypeVar

import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler

from clr.finder.transaction import put_back, random_state, seed_random, uninterrupted
from clr.torch.groups import nested

Key = TypeVar("Key")
_FEW = 100  # items of a list: more are samples, and no loaders
_LOADERS = ("sampler", "batch_sampler", "loader", "_loader", "dataloader", "_dataloader")  # of a loader or a wrapper


class Stateful(Protocol):
    """A thing that gives its state and takes it back, such as a scheduler."""

    def state_dict(self) -> Any:
        """The state."""

    def load_state_dict(self, state_dict: Any, /) -> object:
        """Takes a state."""


class Snapshot:
    """All that a range test changes, as it was."""

    def __init__(
        self,
        modules: list[nn.Module],
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler | None,
        loader: object,
        also: Sequence[Stateful],
        device: torch.device | str | None,
    ) -> None:
        self._divided = _divided(modules)
        self._reshard()
        optimizers = [optimizer, *(thing for thing in also if isinstance(thing, torch.optim.Optimizer))]
        modules = modules + [thing for thing in also if isinstance(thing, nn.Module)]
        others = [thing for thing in also if not isinstance(thing, torch.optim.Optimizer | nn.Module)]
        held = {id(own): own for one in optimizers for own in nested(one)}.values()
        in_groups = chain.from_iterable(group["params"] for own in held for group in own.param_groups)
        in_modules = chain.from_iterable(module.parameters() for module in modules)
        self.parameters = list({id(part): part for part in chain(in_modules, in_groups)}.values())
        self._modules = Modules(modules, self.parameters, device)
        self._weights = Copy(self.parameters, device)
        self._optimizers = [_Optimizer(own, self.parameters, device) for own in held]
        self._scaler = scaler
        self._scaling = None if scaler is None else Copy(vars(scaler), device)
        self._also = [(thing, copy.deepcopy(thing.state_dict())) for thing in others]
        self._random = [random_state(), *generators(loader)]

    @torch.no_grad()
    def restore(self) -> None:
        """Puts back everything but the gradients."""
        put_back(
            self._reshard,
            # First, for they may write into weights and rates.
            *(partial(self._restore_other, *pair) for pair in self._also),
            self._modules.restore,
            self._weights.restored,
            *(own.restore for own in self._optimizers),
            self._restore_scaler,
            *self._random,
        )

    def _reshard(self) -> None:
        """Ends what a forward pass without a backward pass leaves of ``fully_shard``: whole weights among the parts."""
        for part in self._divided:
            part.reshard()

    def _restore_other(self, thing: Stateful, state: object) -> None:
        thing.load_state_dict(copy.deepcopy(state))

    def _restore_scaler(self) -> None:
        if self._scaling is not None:
            _refill(vars(self._scaler), self._scaling.restored())

    def restore_gradients(self) -> None:
        """Puts back the gradients."""
        self._modules.restore_gradients()


class _Optimizer:
    """An optimizer as it was: its attributes, the state of each parameter, and its groups."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, parameters: list[torch.Tensor], device: torch.device | str | None
    ) -> None:
        self._optimizer = optimizer
        # Such as PyTorch's note of whether a scheduler was stepped too early, and what a scaler lends it for an update.
        self._attributes = dict(vars(optimizer))
        inner = [value for name, value in self._attributes.items() if name != "state"]
        self._contents = _Contents(inner, parameters, device)
        self._state = Copy(dict(optimizer.state), device)

    def restore(self) -> None:
        _refill(vars(self._optimizer), self._attributes)
        put_back(self._contents.restore, self._restore_state)

    def _restore_state(self) -> None:
        _refill(self._optimizer.state, self._state.restored())


class _Contents:
    """The tensors, arrays, generators, lists and dicts in values: they stay the same, and get their contents back."""

    def __init__(self, values: list[Any], kept: list[torch.Tensor], device: torch.device | str | None) -> None:
        self._restores: list[Callable[[], object]] = []
        self._seen = set(map(id, kept))
        for value in values:
            self._keep(value, device)

    def restore(self) -> None:
        put_back(*self._restores)

    def _keep(self, value: Any, device: torch.device | str | None) -> None:
        if id(value) in self._seen:
            return
        self._seen.add(id(value))
        if isinstance(value, torch.Tensor):
            self._restores.append(_Kept(value, device).restore)
        elif isinstance(value, dict):
            self._restores.append(partial(_refill, value, dict(value)))
        elif isinstance(value, list):
            self._restores.append(partial(value.__setitem__, slice(None), list(value)))
        elif isinstance(value, deque | set):
            self._restores.append(partial(_reload, value, list(value)))
        elif (put := _generator(value) or _array(value)) is not None:
            self._restores.append(put)
        inside = value.values() if isinstance(value, dict) else value
        for inner in list(inside) if isinstance(value, dict | list | tuple | deque | set) else ():
            self._keep(inner, device)


class Modules:
    """What modules have beside their parameters, as it was: extra state, modes, buffers and gradients."""

    def __init__(
        self, modules: list[nn.Module], parameters: list[torch.Tensor], device: torch.device | str | None = None
    ) -> None:
        parts = [part for module in modules for part in module.modules()]
        self._extra = [(part, Copy(part.get_extra_state(), device)) for part in parts if _has_extra_state(part)]
        self._modes = [(part, part.training) for part in parts]
        # By name, for a module may put another tensor in the place of one of these.
        named: list[dict[str, Any]] = [
            own for part in parts for own in (part._parameters, part._buffers, part._modules)
        ]
        self._named = [(own, dict(own)) for own in named]
        # Tensors that are neither parameters nor buffers, such as the `weight` of the old `weight_norm`.
        self._plain = [(vars(part), _tensors_in(vars(part))) for part in parts]
        self._required = [(part, part.requires_grad) for part in parameters]
        plain = [value for _, found in self._plain for value in found.values() if value.grad_fn is None]
        self._plain_contents = Copy(plain, device)
        self._contents = Copy(
            list({id(part): part for module in modules for part in module.buffers()}.values()), device
        )
        # The test cannot change these tensors, so they need no copy.
        self._gradients = [(part, part.grad) for part in parameters]

    def restore(self) -> None:
        """Puts back extra state, modes and buffers."""
        extra = (partial(self._restore_extra, *pair) for pair in self._extra)
        put_back(*extra, self._restore_modes, self._contents.restored, self._plain_contents.restored)

    def restore_gradients(self) -> None:
        """Puts back the gradients, which the test removes while it trains."""
        put_back(*(partial(setattr, part, "grad", gradient) for part, gradient in self._gradients))

    def _restore_extra(self, part: nn.Module, state: "Copy") -> None:
        part.set_extra_state(state.restored())

    def _restore_modes(self) -> None:
        for part, training in self._modes:
            part.training = training
        for own, before in self._named:
            _refill(own, before)
        for attributes, tensors in self._plain:
            attributes.update(tensors)
        for parameter, required in self._required:
            parameter.requires_grad_(required)


class Copy:
    """Copies of the tensors in a value, next to the tensors, which keep their identity when they are restored."""

    def __init__(self, value: object, device: torch.device | str | None) -> None:
        self._tensors: list[_Kept] = []
        self._kept = self._keep(value, device)

    def restored(self) -> Any:
        """The value with its tensors as they were, in containers of its own."""
        put_back(*(kept.restore for kept in self._tensors))
        return self._rebuilt(self._kept)

    def _keep(self, value: object, device: torch.device | str | None) -> Any:
        if isinstance(value, torch.Tensor):
            self._tensors.append(_Kept(value, device))
            return self._tensors[-1]
        if type(value) in (dict, list, tuple):
            return mapped(value, lambda item: self._keep(item, device))
        return copy.deepcopy(value)

    def _rebuilt(self, kept: object) -> Any:
        if isinstance(kept, _Kept):
            return kept.tensor
        return mapped(kept, self._rebuilt) if type(kept) in (dict, list, tuple) else copy.deepcopy(kept)


class _Kept:
    """A tensor and a copy of its values."""

    def __init__(self, tensor: torch.Tensor, device: torch.device | str | None) -> None:
        self.tensor = tensor
        data = _unrepeated(tensor.detach())
        self._data = data.clone() if device is None else data.to(device, copy=True)

    def restore(self) -> None:
        if self.tensor.layout is torch.strided:
            _unrepeated(self.tensor.detach()).copy_(self._data)
        else:  # into the tensor itself, since its indices change too
            with torch.no_grad():
                self.tensor.copy_(self._data)


def generators(loader: object) -> list[Callable[[], object]]:
    """Functions that put PyTorch's random state, and that of a loader, back to what it is now."""
    pairs: list[tuple[Callable[[], Any], Callable[[Any], Any]]] = [(torch.get_rng_state, torch.set_rng_state)]
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        pairs.append((torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all))
    if torch.backends.mps.is_available():
        pairs.append((torch.mps.get_rng_state, torch.mps.set_rng_state))
    own = {id(value): value for value in _attributes(loader)}.values()
    return [partial(put, get()) for get, put in pairs] + [put for put in map(_generator, own) if put is not None]


def modes(device: torch.device) -> Callable[[], None]:
    """A function that puts the modes of this thread back to what they are now.

    A Ctrl-C may leave the ``with`` of one of them without its end.
    """
    kinds = {"cpu", device.type} - {"meta"}
    casts = [(kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds]
    gradients, cached, depth = torch.is_grad_enabled(), torch.is_autocast_cache_enabled(), _autocast_depth()

    def restore() -> None:
        torch.set_grad_enabled(gradients)
        for kind, enabled, dtype in casts:
            torch.set_autocast_enabled(kind, enabled)
            torch.set_autocast_dtype(kind, dtype)
        torch.set_autocast_cache_enabled(cached)
        for _ in range(_autocast_depth() - depth):
            torch.autocast_decrement_nesting()
        if not depth:
            torch.clear_autocast_cache()

    return restore


def _autocast_depth() -> int:
    """How many ``torch.autocast`` surround this call."""
    with uninterrupted():  # for to ask is to change it, for a moment
        depth = torch.autocast_increment_nesting() - 1
        torch.autocast_decrement_nesting()
    return depth


def seed(number: int, loader: object) -> None:
    """Seeds all that a test draws from."""
    seed_random(number)
    torch.manual_seed(number)
    for own in _own_generators(loader):
        own.manual_seed(number)


def counts(loader: object) -> list[Callable[[], object]]:
    """Functions that put the attributes of a loader and its samplers back, such as the epochs that they count."""
    holders: list[Any] = [own for own in _holders(loader) if isinstance(own, DataLoader | Sampler)]
    # In which Accelerate notes the loaders that are being read.
    holders += [own.gradient_state for own in holders if hasattr(own, "gradient_state")]
    return [partial(_refill, vars(own), dict(vars(own))) for own in holders]


def _own_generators(loader: object) -> list[torch.Generator]:
    """The generators of PyTorch that a loader, its samplers, and the loaders that it wraps draw from."""
    return list({id(value): value for value in _attributes(loader) if isinstance(value, torch.Generator)}.values())


def _attributes(loader: object) -> Iterator[object]:
    """What a loader, its samplers, and the loaders that it wraps have as attributes."""
    for own in _holders(loader):
        yield getattr(own, "generator", None)
        yield from getattr(own, "__dict__", {}).values()


def _generator(value: object) -> Callable[[], object] | None:
    """A function that puts a random generator back to what it is now; None for anything else."""
    if isinstance(value, torch.Generator):
        return partial(value.set_state, value.get_state())
    if isinstance(value, random.Random):
        return partial(value.setstate, value.getstate())
    numpy: Any = sys.modules.get("numpy")
    if numpy and isinstance(value, numpy.random.RandomState):
        return partial(value.set_state, value.get_state())
    if numpy and isinstance(value, numpy.random.Generator):
        return partial(setattr, value.bit_generator, "state", value.bit_generator.state)
    return None


def _holders(loader: object) -> list[object]:
    """A loader, its samplers, and the loaders that it wraps."""
    found: dict[int, object] = {}
    waiting = [loader]
    while waiting:
        own = waiting.pop()
        if id(own) not in found:
            found[id(own)] = own
            named = list(getattr(own, "__dict__", {}).items())
            named += [("", item) for _, value in named if isinstance(value, list | tuple) for item in value[:_FEW]]
            named += [("", item) for item in (own[:_FEW] if isinstance(own, list | tuple) else ())]
            waiting += [value for name, value in named if isinstance(value, DataLoader | Sampler) or name in _LOADERS]
    return list(found.values())


def _array(value: object) -> Callable[[], object] | None:
    """A function that puts an array of NumPy back to what it is now; None for anything else."""
    numpy: Any = sys.modules.get("numpy")
    return partial(numpy.copyto, value, value.copy()) if numpy and isinstance(value, numpy.ndarray) else None


def _reload(value: Any, items: list[Any]) -> None:
    """Gives a deque or a set other contents."""
    value.clear()
    (value.update if isinstance(value, set) else value.extend)(items)


def _divided(modules: list[nn.Module]) -> list[Any]:
    """The modules that ``fully_shard`` has divided among processes."""
    kind: Any = getattr(sys.modules.get("torch.distributed.fsdp"), "FSDPModule", ())
    return [part for module in modules for part in module.modules() if isinstance(part, kind)]


def _tensors_in(attributes: Mapping[str, object]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in attributes.items() if isinstance(value, torch.Tensor)}


def _has_extra_state(part: nn.Module) -> bool:
    """Whether a module has a state beside its tensors, by the signs that PyTorch goes by."""
    own = type(part)
    return nn.Module.get_extra_state is not own.get_extra_state and nn.Module.set_extra_state is not own.set_extra_state


def _unrepeated(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with all of its memory but none of it twice: into what ``expand`` repeats nothing can be written."""
    if tensor.layout is torch.strided and not tensor.is_nested:
        for dimension, stride in enumerate(tensor.stride()):
            if stride == 0:
                tensor = tensor[(slice(None),) * dimension + (slice(1),)]
    return tensor


def _refill(old: MutableMapping[Key, Any], new: Mapping[Key, Any]) -> None:
    """Gives a dict other contents."""
    old.clear()
    old.update(new)


def mapped(value: Any, function: Callable[[Any], Any]) -> Any:
    """A dict, list or tuple with ``function`` applied to what it holds."""
    if isinstance(value, dict):
        return {key: function(item) for key, item in value.items()}
    return type(value)(function(item) for item in value)
