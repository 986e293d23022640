"""Registers the models with transformers when its auto modules are imported; keeps `import pos_hf` light."""

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from .models.registration import register_configs, register_models

REGISTER_AFTER = {
    "transformers.models.auto.configuration_auto": register_configs,
    "transformers.models.auto.modeling_auto": register_models,
}


class _RegisterAfterImport(MetaPathFinder):
    """Finds the two auto modules as usual, and registers once they have been executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in REGISTER_AFTER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        sys.meta_path.insert(0, self)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            REGISTER_AFTER[fullname]()

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def register_with_transformers() -> None:
    """Register now what transformers has imported already, and the rest right after it is imported."""
    for name, register in REGISTER_AFTER.items():
        if name in sys.modules:
            register()
    sys.meta_path.insert(0, _RegisterAfterImport())
