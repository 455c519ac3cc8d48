"""YAML as users write it: a key that comes twice in a mapping is a mistake, and not the last one's to win."""

from __future__ import annotations

from typing import Any

import yaml


def read_yaml(text: str) -> Any:
    """Return the value of a YAML text.

    Raises:
        yaml.YAMLError: If it is not valid, is nested too deeply, or a mapping has a key twice.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_keys(node, set())
        return loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply, or an alias leads to itself") from None
    finally:
        loader.dispose()


def _check_keys(node: yaml.Node, seen: set[int]) -> None:
    """Raise `yaml.YAMLError` if a mapping in a node has a key twice; what a merge (`<<`) brings may be changed."""
    if id(node) in seen or not isinstance(node, yaml.CollectionNode):
        return
    seen.add(id(node))
    if not isinstance(node, yaml.MappingNode):
        for item in node.value:
            _check_keys(item, seen)
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode):
            line = key.start_mark.line + 1
            if key.value in lines:
                where = f"lines {lines[key.value]} and {line}" if line != lines[key.value] else f"line {line}"
                raise yaml.YAMLError(f"key '{key.value}' is there twice, on {where}: leave one")
            lines[key.value] = line
        _check_keys(value, seen)
