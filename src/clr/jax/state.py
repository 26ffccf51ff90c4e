"""The state of a training in JAX: copies of its values for a test, and objects that change in place.

Most states are values. An update returns a new one, so the test works on copies: even an update that donates its
buffers leaves the caller's arrays alone. Modules of Flax NNX and mutable arrays (``jax.Ref``) are objects, which an
update changes in place. The test uses these objects themselves, because the update may also reach them without the
state, and puts back what they held.
"""

import copy
import sys
from typing import Any, Generic, TypeVar

import jax
import numpy as np

from clr import checks
from clr.finder.transaction import put_back, seed_of

S = TypeVar("S")
REF: Any = getattr(jax, "Ref", ())  # mutable arrays, which older releases of JAX do not have
COPYABLE = "made of values that can be copied, or of objects of Flax NNX"


class State(Generic[S]):
    """What a test begins with, as often as it takes, and puts back at its end."""

    def __init__(self, state: S) -> None:
        """Takes the caller's state. Raises a TypeError if a part of it cannot be copied."""
        self._state = state
        self._held = [_Held(one) for one in _objects(state)]
        self._copied(0)

    def begin(self, repeat: int) -> S:
        """A state equal to the caller's, for the test to change. Typed random keys differ in each repeat."""
        self.restore()
        for held in self._held:
            held.copy(repeat)
        return self._copied(repeat)

    def restore(self) -> S:
        """Puts what changes in place back to what it was. Returns the caller's state."""
        put_back(*[held.restore for held in self._held])
        return self._state

    def _copied(self, repeat: int) -> S:
        result: S = jax.tree.map(lambda leaf: _value(leaf, repeat), self._state, is_leaf=_changes)
        return result


class _Held:
    """An object that changes in place, and what it held: the value of a variable, or the attributes of a module."""

    def __init__(self, owner: object) -> None:
        self._owner = owner
        self._content = _content(owner)

    def copy(self, repeat: int) -> None:
        """Lets the object hold copies of its arrays, so that an update may donate them."""
        if not isinstance(self._owner, REF):  # the content of which is a copy already
            _set(self._owner, {name: _arrays(value, repeat) for name, value in self._content.items()})

    def restore(self) -> None:
        _set(self._owner, self._content)


def _content(owner: Any) -> dict[str, object]:
    if isinstance(owner, REF):
        return {"value": owner[...].copy()}
    if _is_nnx(owner, "Variable"):
        return {"value": owner.get_raw_value()}
    return dict(vars(owner))


def _set(owner: Any, content: dict[str, object]) -> None:
    if isinstance(owner, REF):
        owner[...] = content["value"]
    elif _is_nnx(owner, "Variable"):
        owner.set_raw_value(content["value"])
    else:
        vars(owner).clear()
        vars(owner).update(content)


def _is_nnx(leaf: object, name: str) -> bool:
    """Whether this is an object of a class of Flax NNX. If Flax is not loaded, no state can hold one."""
    nnx = sys.modules.get("flax.nnx")
    return isinstance(leaf, getattr(nnx, name, ()))


def _changes(leaf: object) -> bool:
    """Whether an update may change this object in place."""
    return isinstance(leaf, REF) or _is_nnx(leaf, "Variable") or _is_nnx(leaf, "Pytree")


def _objects(state: object) -> list[object]:
    """The objects in a state that an update may change in place, each of them once."""
    found: dict[int, object] = {}

    def visit(tree: object) -> None:
        for leaf in jax.tree.leaves(tree, is_leaf=_changes):
            if _changes(leaf) and id(leaf) not in found:
                found[id(leaf)] = leaf
                if not isinstance(leaf, REF):
                    visit(list(_content(leaf).values()))

    visit(state)
    return list(found.values())


def _arrays(tree: object, repeat: int) -> object:
    """The same with copies of its arrays."""
    return jax.tree.map(lambda leaf: _array(leaf, repeat), tree, is_leaf=_changes)


def _array(leaf: object, repeat: int) -> object:
    """A copy of an array, and other things as they are. A typed random key is another one in each repeat."""
    if isinstance(leaf, REF) or not isinstance(leaf, jax.Array | np.ndarray):
        return leaf
    if repeat and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = jax.random.key_data(leaf) ^ np.uint32(seed_of(repeat))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    return leaf.copy()


def _value(leaf: object, repeat: int) -> object:
    """A copy of a leaf of the state, unless it is an object that changes in place."""
    is_function = callable(leaf) and type(leaf).__module__.partition(".")[0] in ("jax", "jaxlib")  # say, jax.nn.relu
    if _changes(leaf) or is_function:
        return leaf
    array = _array(leaf, repeat)
    if array is not leaf:
        return array
    try:
        return copy.deepcopy(leaf)
    except Exception:
        checks.fail(TypeError, "state", COPYABLE, leaf)
