"""The runbook: its command that counts verdicts counts, and every alert has a row."""

import dataclasses
import json
import re
import subprocess
from pathlib import Path

from jdfd_keras.serving.jobs.job_documents import JobSummary

ROOT = Path(__file__).parents[2]


def test_the_command_that_counts_verdicts_of_each_day():
    text = (ROOT / "serving" / "RUNBOOK.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    command = block.replace("\\\n", " ").partition("| ")[2]
    names = {field.name for field in dataclasses.fields(JobSummary)}
    assert {"finished_at", "verdict", "state"} <= names
    jobs = [
        ("2026-11-02T08:00:00+00:00", "fake", "done"),
        ("2026-11-02T09:00:00+00:00", "uncertain", "done"),
        ("2026-11-01T09:00:00+00:00", "no_evidence", "done"),
        ("2026-11-02T10:00:00+00:00", "uncertain", "done"),
        ("2026-11-02T11:00:00+00:00", "", "failed"),
        ("", "", "queued"),
    ]
    files = [dict(zip(("finished_at", "verdict", "state"), job, strict=True)) for job in jobs]
    done = subprocess.run(
        ["bash", "-c", command],
        input=json.dumps({"files": files, "total": len(files)}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "2026-11-01 1 no_evidence",
        "2026-11-02 1 failed 1 fake 2 uncertain",
    ]


def test_every_alert_has_a_row():
    text = (ROOT / "serving" / "RUNBOOK.md").read_text(encoding="utf-8")
    alerts = re.findall(r"alert: (\w+)", (ROOT / "serving" / "alerts.yml").read_text("utf-8"))
    assert [f"`{name}`" in text for name in alerts] == [True] * 4
