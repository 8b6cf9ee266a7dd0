"""What a run writes as it goes: metrics, head scores, TensorBoard's events."""

from __future__ import annotations

METRICS_FILE, HEADS_FILE = "metrics.jsonl", "heads.jsonl"
LOGS = (METRICS_FILE, HEADS_FILE, "events.out.tfevents.*")
