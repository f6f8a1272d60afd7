"""Names and signatures are those of the standard library; what is new is added."""

import importlib
import inspect
import multiprocessing
import pkgutil

import pytest

import forkyard

MODULES = sorted(module.name for module in pkgutil.iter_modules(multiprocessing.__path__))


def public(module):
    return set(getattr(module, "__all__", ()))


def test_the_package_has_every_name():
    assert public(multiprocessing) <= public(forkyard)
    for name in public(forkyard):
        assert hasattr(forkyard, name)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_is_there(name):
    if name == "popen_spawn_win32":
        return
    theirs = importlib.import_module(f"multiprocessing.{name}")
    ours = importlib.import_module(f"forkyard.{name}")
    assert public(theirs) <= public(ours) | set(vars(ours))
    for attribute in public(theirs):
        assert hasattr(ours, attribute), attribute


def signature(function):
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None


def check(theirs, ours, where):
    theirs, ours = signature(theirs), signature(ours)
    if theirs is None or ours is None:
        return
    # `self` is named differently in native methods.
    theirs, ours = ([p for p in ps if p.name != "self"] for ps in (theirs, ours))
    assert [p.name for p in ours[: len(theirs)]] == [p.name for p in theirs], where
    for mine, their in zip(ours, theirs, strict=False):
        assert mine.kind == their.kind, (where, mine)
        assert mine.default == their.default, (where, mine)
    for added in ours[len(theirs) :]:
        assert added.kind is inspect.Parameter.KEYWORD_ONLY, (where, added)
        assert added.default is not inspect.Parameter.empty, (where, added)


@pytest.mark.parametrize("name", sorted(public(multiprocessing)))
def test_factories_have_the_same_signature(name):
    if callable(getattr(multiprocessing, name)):
        check(getattr(multiprocessing, name), getattr(forkyard, name), name)


@pytest.mark.parametrize("name", MODULES)
def test_classes_and_functions_have_the_same_signatures(name):
    if name == "popen_spawn_win32":
        return
    theirs = importlib.import_module(f"multiprocessing.{name}")
    ours = importlib.import_module(f"forkyard.{name}")
    for attribute in public(theirs):
        their, our = getattr(theirs, attribute), getattr(ours, attribute)
        if inspect.isclass(their):
            for method, function in inspect.getmembers(their, inspect.isfunction):
                if not method.startswith("_"):
                    check(function, getattr(our, method), f"{name}.{attribute}.{method}")
        elif callable(their):
            check(their, our, f"{name}.{attribute}")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver", None])
def test_contexts_are_accepted_where_the_standard_librarys_are(method):
    ctx = forkyard.get_context(method)
    assert isinstance(ctx, multiprocessing.context.BaseContext)
    assert isinstance(ctx.Process(), multiprocessing.process.BaseProcess)
    assert ctx.get_context() is ctx


def test_the_start_method_is_the_standard_librarys():
    assert forkyard.get_start_method() == multiprocessing.get_start_method()
    with pytest.raises(RuntimeError):
        forkyard.set_start_method("spawn")
    with pytest.raises(ValueError, match="cannot find context"):
        forkyard.get_context("no such method")
