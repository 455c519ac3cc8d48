"""The server against its own OpenAPI description: schemathesis sends what it allows, and what it does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mm1.processing.chat import default_chat_template
from tests.serve.conftest import make_service, save_model, serving

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "unsupported_method",
)


def test_the_server_is_what_it_says(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", default_chat_template())
    with serving(make_service(model, max_tokens=4)) as served:
        result = subprocess.run(
            [
                Path(sys.executable).with_name("schemathesis"),
                *("run", f"{served.url}/openapi.json", "--checks", ",".join(CHECKS)),
                *("--phases", "examples,coverage,fuzzing", "--max-examples", "100", "--request-timeout", "60"),
                *("--seed", "0", "--generation-database", "none"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
        assert served.under_way() == 0
