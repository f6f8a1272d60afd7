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


@pytest.mark.parametrize("method", ["zygote", "fork", "spawn", "forkserver", None])
def test_contexts_are_accepted_where_the_standard_librarys_are(method):
    ctx = forkyard.get_context(method)
    assert isinstance(ctx, multiprocessing.context.BaseContext)
    assert isinstance(ctx.Process(), multiprocessing.process.BaseProcess)
    assert ctx.get_context() is ctx


CHOICE = """
import multiprocessing, subprocess, sys
import forkyard

assert forkyard.get_start_method(allow_none=True) is None
{use}
print(forkyard.get_start_method(), multiprocessing.get_start_method())
try:
    forkyard.set_start_method("spawn")
except RuntimeError:
    print("chosen")
"""


@pytest.mark.parametrize(
    ("use", "outcome"),
    [
        ("", "zygote STANDARD"),
        ("multiprocessing.get_context()", "zygote STANDARD"),
        ("forkyard.get_context('spawn')", "zygote STANDARD"),
        ("forkyard.set_start_method('zygote')", "zygote zygote"),
        ("forkyard.set_start_method('fork')", "fork fork"),
        ("forkyard.set_start_method('spawn')", "spawn spawn"),
        ("multiprocessing.set_start_method('spawn')", "spawn spawn"),
        ("forkyard.set_start_method('spawn'); forkyard.set_start_method(None, force=True)", "zygote STANDARD"),
    ],
)
def test_a_start_method_that_was_chosen_is_the_standard_librarys_too(program, use, outcome):
    standard = multiprocessing.get_all_start_methods()[0]
    done = program(CHOICE.format(use=use))
    assert (done.stdout, done.stderr) == (outcome.replace("STANDARD", standard) + "\nchosen\n", "")


def test_the_first_start_method_is_the_default():
    assert forkyard.get_all_start_methods() == ["zygote", "fork", "spawn", "forkserver"]
    with pytest.raises(ValueError, match="cannot find context"):
        forkyard.get_context("no such method")
