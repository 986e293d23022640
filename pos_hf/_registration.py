"""Registers the models with transformers when its Auto classes are imported; keeps `import pos_hf` light."""

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

CONFIGS = "transformers.models.auto.configuration_auto"
MODELS = "transformers.models.auto.modeling_auto"


def _register() -> None:
    from .models.registration import register_configs, register_models

    register_configs()
    register_models()


class _RegisterAfterImport(MetaPathFinder):
    """Finds the two auto modules as usual, and registers once both have been executed.

    The modeling one imports the configuration one; where that comes alone, it brings the other.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in (CONFIGS, MODELS):
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        sys.meta_path.insert(0, self)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            if fullname == MODELS:
                _register()
            elif MODELS not in sys.modules:
                importlib.import_module(MODELS)

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def register_with_transformers() -> None:
    """Register now if transformers' auto modules are there already, otherwise right after they are imported."""
    if MODELS in sys.modules:
        _register()
    elif CONFIGS in sys.modules:
        importlib.import_module(MODELS)
        _register()
    else:
        sys.meta_path.insert(0, _RegisterAfterImport())
