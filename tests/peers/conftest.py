"""Which of the library's tests say nothing about MM1, and why. Any other skip is a failure.

`MM1_ALL=1` runs the tests that are set aside all the same.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Generator
from importlib.util import find_spec
from typing import Any

import pytest

# The library's tests read the environment when they are imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

_CUT = "pixel_values counts images, not rows of the batch: a picture that is cut is several of them"
SET_ASIDE = {
    r"CutProcessorTest::test_apply_chat_template_image": _CUT,
    r"CutProcessorTest::test_subprocessor_defaults_1_images": _CUT,
    r"(Default|InnerLayer)ModelTest::test_training_gradient_checkpointing": (
        "the variant leaves weights of its tower unused, as LLaVA does: CLIP's last norm, layers behind the one read"
    ),
    r"FSDPTest::test_fsdp2_plan_vs_ddp_1_tied": (
        "the library's own Llama differs from one process too: FSDP2 with tied embeddings (transformers 5.23)"
    ),
}
"""Tests set aside here, and why."""

NOT_APPLICABLE = (
    (r"requires (multiple )?accelerators?|requires MPS|test is slow", "the machine has CPUs; slow tests need a GPU"),
    (r"Flash Attention|kernels library|deepspeed", "packages for GPUs"),
    (r"librosa|Torchcodec|(audio|video)[_ ]processor|feature_extractor|accept videos", "no audio, no video"),
    (r"encoder-decoder", "a decoder alone"),
    (r"_keep_in_fp32_modules", "no module is kept in float32"),
    (r"partial rope|axial RoPE", "a decoder like Llama, a tower with learned positions"),
    (r"does not have position embeddings", "as LLaVA: the parts have positions of their own"),
    (r"sliding window", "as LLaVA: the decoder has it or not"),
    (r"Only PrefixChange conversions", "names of weights are those of the modules"),
    (r"does not support SDPA", "the test of models of one part; that of composite models runs"),
    (r"no sparse experts|does not support grouped_mm|Not an MoE|no `output_router_logits`", "a dense variant"),
    (r"[Ee]xpert parallel plan", "a dense variant"),
    (r"Need at least 8 FSDP workers", "more processes than two cores carry"),
    (r"Chat template does not support tools", "conversations call no tools"),
    *((re.escape(why), why) for why in SET_ASIDE.values()),
)
"""Reasons for which the library's tests skip themselves, each with what it means here."""


PACKAGES = ("accelerate", "bitsandbytes", "parameterized", "peft", "schemathesis", "torchao", "trl")


def pytest_configure(config: pytest.Config) -> None:
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        raise pytest.UsageError(f"tests/peers needs {', '.join(missing)}: run make test-peers, which installs them")
    config.addinivalue_line("filterwarnings", "ignore")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for pattern, why in SET_ASIDE.items():
            if re.search(pattern, item.nodeid) and not os.environ.get("MM1_ALL"):
                item.add_marker(pytest.mark.skip(reason=why))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a skip for an unknown reason fail."""
    report = yield
    if report.skipped and _meaning(report) is None:
        report.outcome = "failed"
        report.longrepr = f"skipped for a reason that tests/peers/conftest.py does not know: {_reason(report)}"
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Count the tests by class or file, and list what says nothing about MM1, and why."""
    stats = terminalreporter.stats
    places = {
        name: Counter(_place(report) for report in stats.get(name, ())) for name in ("passed", "skipped", "failed")
    }
    for place in sorted(set().union(*places.values())):
        passed, skipped, failed = (counts[place] for counts in places.values())
        terminalreporter.write_line(f"{place}: {passed} passed, {skipped} not for MM1, {failed} failed")
    counts = Counter((_meaning(report), _reason(report)) for report in stats.get("skipped", ()))
    for (meaning, reason), count in sorted(counts.items(), key=str):
        terminalreporter.write_line(f"not for MM1: {count:4} tests, {meaning} ({reason})")


def _place(report: pytest.TestReport) -> str:
    """Return the class of a test, or its file if it has none."""
    path, *names = report.nodeid.split("::")
    return names[0] if len(names) > 1 else path


def _reason(report: pytest.TestReport) -> str:
    text = str(report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr)
    return text.removeprefix("Skipped: ")


def _meaning(report: pytest.TestReport) -> str | None:
    return next((why for pattern, why in NOT_APPLICABLE if re.search(pattern, _reason(report))), None)
