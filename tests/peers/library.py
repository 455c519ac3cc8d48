"""Makes the library's common tests importable, from the `tests` folder of its source distribution.

The distribution holds the mixins and not all that they import. What it leaves out is stood in for: by an empty class,
or by a small equivalent. In a checkout of the whole repository (`TRANSFORMERS_TESTS`) the real modules are taken.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from typing import Any

import torch
import transformers
import transformers.utils

from tests.peers.fetch import tests_folder

PACKAGE = "transformers_tests"
FOLDER = tests_folder()


def common(name: str) -> Any:
    """Return one of the common test modules, by its path without `tests.`.

    Raises:
        SystemExit: If the tests are not there.
    """
    _install()
    return importlib.import_module(f"{PACKAGE}.{name}")


def register(model_type: str, base: str, whole: str) -> None:
    """Enter a model into the tables by which the tests know classes; those hold the library's own models only."""
    from transformers.models.auto import modeling_auto as tables

    tables.MODEL_MAPPING_NAMES[model_type] = base
    tables.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[model_type] = whole


def _install() -> None:
    """Make the folder a package, with stand-ins for what it lacks."""
    if PACKAGE in sys.modules:
        return
    if not (FOLDER / "test_modeling_common.py").is_file():
        raise SystemExit(f"{FOLDER}: the common tests of transformers are not there: run make test-peers")
    package = types.ModuleType(PACKAGE)
    package.__path__ = [str(FOLDER)]
    sys.modules[PACKAGE] = package

    from tests.peers import ranks

    _stand_in("exporters.test_export", ExportTesterMixin=type("ExportTesterMixin", (), {}))
    _stand_in("generation.test_utils", GenerationTesterMixin=type("GenerationTesterMixin", (), {}))
    _stand_in("utils.test_configuration_utils", config_common_kwargs={})
    _stand_in(
        "distributed_testing_utils",
        run_distributed=ranks.run_distributed,
        _get_distributed_backend=lambda: "gloo",
        _get_distributed_device_type=lambda: "cpu",
        _get_rank_device=lambda rank: torch.device("cpu"),
        _set_rank_device=lambda rank: None,
        _start_rank_processes=ranks.start_ranks,
    )
    if not (FOLDER.parent / "utils" / "fetch_hub_objects_for_ci.py").is_file():
        module = types.ModuleType("fetch_hub_objects_for_ci")
        module.url_to_local_path = lambda url, *_, **__: url  # type: ignore[attr-defined]
        sys.modules["fetch_hub_objects_for_ci"] = module
    if not (FOLDER / "__init__.py").is_file():  # the mixins would import the library through that file
        transformers.utils.direct_transformers_import = lambda *_, **__: transformers


def _stand_in(name: str, **content: Any) -> None:
    """Make a module with this content, unless the folder has it."""
    path = name.split(".")
    if FOLDER.joinpath(*path).with_suffix(".py").is_file():
        return
    for depth in range(1, len(path) + 1):
        full = ".".join([PACKAGE, *path[:depth]])
        if full not in sys.modules:
            module = types.ModuleType(full)
            module.__path__ = [str(FOLDER.joinpath(*path[:depth]))]
            sys.modules[full] = module
    vars(sys.modules[f"{PACKAGE}.{name}"]).update(content)
