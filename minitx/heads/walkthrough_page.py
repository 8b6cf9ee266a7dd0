"""The walkthrough for a terminal and as an HTML page."""

from __future__ import annotations

import html
import math
import textwrap

from minitx.heads.walkthrough import Table, TwoContexts, Walk


def as_text(walked: Walk, contexts: TwoContexts | None = None) -> str:
    """The steps for a terminal."""
    lines = [f"Layer {walked.layer}, head {walked.head}, token {walked.query} {walked.labels[walked.query]!r}", ""]
    for number, step in enumerate(walked.steps, 1):
        lines += [f"{number}. {step.title}", *_wrapped(step.words), f"   {step.shape}", ""]
        for caption, table in step.tables:
            lines += [f"   {caption}", *(f"   {line}" for line in _plain_table(table)), ""]
        lines += [f"   ✓ {what} (largest difference {miss:.0e})" for what, miss in step.checks]
        lines += [""] if step.checks else []
    if contexts is not None:
        lines += ["One token in two contexts", *_wrapped(_contexts_words(contexts)), ""]
        lines += [f"   {name:14} {value:6.3f}" for name, value in _context_rows(contexts)]
    return "\n".join(line.rstrip() for line in lines)


def as_html(walked: Walk, title: str, contexts: TwoContexts | None = None) -> str:
    """The steps as one page that needs nothing else."""
    parts = [PAGE.replace("TITLE", html.escape(title)), f"<h1>{html.escape(title)}</h1>"]
    parts.append(
        f"<p>Layer {walked.layer}, head {walked.head}, seen from token {walked.query}, "
        f"<b>{html.escape(walked.labels[walked.query])}</b>.</p>"
    )
    for number, step in enumerate(walked.steps, 1):
        parts.append(f"<section><h2>{number}. {html.escape(step.title)}</h2><p>{html.escape(step.words)}</p>")
        parts.append(f"<p class=shape>{html.escape(step.shape)}</p>")
        for caption, table in step.tables:
            parts.append(_html_table(caption, table))
        for what, miss in step.checks:
            parts.append(f"<p class=check>✓ {html.escape(what)} <small>(largest difference {miss:.0e})</small></p>")
        parts.append("</section>")
    if contexts is not None:
        parts.append(
            f"<section><h2>One token in two contexts</h2><p>{html.escape(_contexts_words(contexts))}</p><table>"
        )
        parts += [f"<tr><th>{name}</th>{_html_cell(value, 1.0)}</tr>" for name, value in _context_rows(contexts)]
        parts.append("</table></section>")
    return "\n".join([*parts, "</body></html>", ""])


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>TITLE</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
section { border-top: 1px solid #ddd; margin-top: 1.5rem }
h2 { font-size: 1.2rem }
.shape { font-family: ui-monospace, monospace; color: #555 }
.check { color: #17692e; margin: .2rem 0 }
.table { overflow-x: auto; margin: .8rem 0 }
table { border-collapse: collapse; font: 13px ui-monospace, monospace }
caption { text-align: left; color: #555; padding-bottom: .2rem }
th, td { padding: .1rem .5rem; text-align: right; font-weight: normal; white-space: nowrap }
tr.marked th { font-weight: bold }
</style></head><body>"""


def _wrapped(words: str) -> list[str]:
    return textwrap.wrap(words, 100, initial_indent="   ", subsequent_indent="   ")


def _contexts_words(contexts: TwoContexts) -> str:
    return (
        f"{contexts.label!r} in {contexts.texts[0]!r} and in {contexts.texts[1]!r}: one embedding, two vectors in "
        "context. Cosine of the two (1: the same direction):"
    )


def _context_rows(contexts: TwoContexts) -> list[tuple[str, float]]:
    names = ["embedding", *(f"after layer {layer}" for layer in range(len(contexts.similarity) - 1))]
    return list(zip(names, contexts.similarity, strict=True))


def _plain_table(table: Table) -> list[str]:
    width = max(len(label) for label in table.rows) + 2
    more = " …" if table.total > len(table.columns) else ""
    lines = []
    if len(table.columns) > 1:
        note = f" … {table.total} in all" if more else ""
        lines.append(" " * width + "".join(f"{column:>8}" for column in table.columns) + note)
    for at, (label, values) in enumerate(zip(table.rows, table.values, strict=True)):
        mark = " ◂" if at == table.marked else ""
        lines.append(f"{label:<{width}}" + "".join(f"{_figure(value):>8}" for value in values) + more + mark)
    return lines


def _html_table(caption: str, table: Table) -> str:
    finite = [abs(value) for values in table.values for value in values if math.isfinite(value)]
    reach = max(finite, default=1.0) or 1.0
    more = table.total > len(table.columns)
    lines = [f"<div class=table><table><caption>{html.escape(caption)}</caption>"]
    if len(table.columns) > 1:
        heads = "".join(f"<th>{column}</th>" for column in table.columns)
        lines.append(f"<tr><th></th>{heads}{f'<th>… {table.total} in all</th>' if more else ''}</tr>")
    for at, (label, values) in enumerate(zip(table.rows, table.values, strict=True)):
        marked = " class=marked" if at == table.marked else ""
        cells = "".join(_html_cell(value, reach) for value in values)
        lines.append(f"<tr{marked}><th>{html.escape(label)}</th>{cells}</tr>")
    return "\n".join([*lines, "</table></div>"])


def _html_cell(value: float, reach: float) -> str:
    """A number on red (positive) or blue (negative), the deeper the larger."""
    if not math.isfinite(value):
        return f"<td>{_figure(value)}</td>"
    depth = min(1.0, abs(value) / reach) * 0.6
    colour = "214,80,60" if value > 0 else "60,110,200"
    return f'<td style="background:rgba({colour},{depth:.2f})">{_figure(value)}</td>'


def _figure(value: float) -> str:
    if math.isinf(value):
        return "-∞"
    return f"{value:.3f}" if abs(value) < 99.5 else f"{value:.0f}"
