"""Modules are reached by their name: nothing that a package exports hides one."""

import importlib
import pkgutil
import types

import invsr


def packages():
    yield invsr
    for found in pkgutil.walk_packages(invsr.__path__, "invsr."):
        if found.ispkg:
            yield importlib.import_module(found.name)


def test_no_name_hides_a_module():
    hidden = []
    for package in packages():
        for found in pkgutil.iter_modules(package.__path__):
            if found.name == "__main__":
                continue
            module = importlib.import_module(f"{package.__name__}.{found.name}")
            assert isinstance(module, types.ModuleType)
            if getattr(package, found.name) is not module:
                hidden.append(module.__name__)
    assert hidden == []
