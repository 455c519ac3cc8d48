"""What a model's folder holds so that the Auto classes find MM1's classes without `import mm1`.

    config.json            "auto_map": {"AutoModel": "modeling_mm1.MM1Model", ...}
    processor_config.json  "auto_map": {"AutoProcessor": "modeling_mm1.MM1Processor"}
    modeling_mm1.py        from mm1.model import MM1Model, MM1Processor, ...

`transformers` runs the file only with `trust_remote_code=True`, and never after `import mm1`: registered classes come
first. In a folder of `mm1 export --standalone` the file imports from the package's modules that lie beside it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

CODE = "modeling_mm1.py"
"""The file that has the classes. Not `mm1.py`: Python, started in the folder, would take that for the package."""

CONFIG_AUTO_MAP = {
    "AutoConfig": "modeling_mm1.MM1Config",
    "AutoModel": "modeling_mm1.MM1Model",
    "AutoModelForImageTextToText": "modeling_mm1.MM1ForConditionalGeneration",
    "AutoModelForMultimodalLM": "modeling_mm1.MM1ForConditionalGeneration",
}
PROCESSOR_AUTO_MAP = {"AutoProcessor": "modeling_mm1.MM1Processor"}

_FROM_PACKAGE = "from mm1.model import MM1Config, MM1ForConditionalGeneration, MM1Model, MM1Processor  # noqa: F401\n"


def write_code(folder: Path | str) -> None:
    """Write the file that `auto_map` names, and what it needs, to a folder, which is made if it isn't there.

    Where this module itself was loaded from a model's folder, the files beside it are the ones.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    if __name__ == "mm1.auto_map":
        (target / CODE).write_text(_FROM_PACKAGE, "utf-8")
        return
    from transformers.dynamic_module_utils import get_relative_import_files

    own = Path(__file__).with_name(CODE)
    for file in (own, *map(Path, get_relative_import_files(own))):
        shutil.copyfile(file, target / file.name)
