"""The walkthrough for a terminal and as an HTML page."""

from __future__ import annotations

import html
import math
import textwrap
from importlib import resources
from string import Template

from minitx.heads.contexts import TwoContexts
from minitx.heads.walkthrough import Step, Table, Walk

CONTEXTS = "One token in two contexts"


def as_text(walked: Walk, contexts: TwoContexts | None = None) -> str:
    """The steps for a terminal."""
    lines = [f"Layer {walked.layer}, head {walked.head}, token {walked.query} {walked.label!r}", ""]
    for number, step in enumerate(walked.steps, 1):
        lines += [f"{number}. {step.title}", *_wrapped(step.words), f"   {step.shape}", ""]
        for table in step.tables:
            lines += [f"   {table.caption}", *(f"   {line}" for line in _plain_table(table)), ""]
        lines += [f"   ✓ {what} (largest difference {difference:.0e})" for what, difference in step.checks]
        lines += [""] if step.checks else []
    if contexts is not None:
        lines += [CONTEXTS, *_wrapped(_contexts_words(contexts)), ""]
        lines += [f"   {name:14} {value:6.3f}" for name, value in _context_rows(contexts)]
    return "\n".join(line.rstrip() for line in lines)


def as_html(walked: Walk, title: str, contexts: TwoContexts | None = None) -> str:
    """The steps as one page that needs nothing else."""
    sections = [_section(number, step) for number, step in enumerate(walked.steps, 1)]
    if contexts is not None:
        rows = [f"<tr><th>{name}</th>{_html_cell(value, 1.0)}</tr>" for name, value in _context_rows(contexts)]
        words = html.escape(_contexts_words(contexts))
        sections.append(f"<section><h2>{CONTEXTS}</h2><p>{words}</p><table>{''.join(rows)}</table></section>")
    return Template(resources.files(__package__).joinpath("walkthrough.html").read_text("utf-8")).substitute(
        title=html.escape(title),
        layer=walked.layer,
        head=walked.head,
        query=walked.query,
        label=html.escape(walked.label),
        sections="\n".join(sections),
    )


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
    for row, (label, values) in enumerate(zip(table.rows, table.values, strict=True)):
        mark = " ◂" if row == table.marked else ""
        lines.append(f"{label:<{width}}" + "".join(f"{_figure(value):>8}" for value in values) + more + mark)
    return lines


def _section(number: int, step: Step) -> str:
    """One step of the page."""
    lines = [f"<section><h2>{number}. {html.escape(step.title)}</h2><p>{html.escape(step.words)}</p>"]
    lines.append(f"<p class=shape>{html.escape(step.shape)}</p>")
    lines += [_html_table(table) for table in step.tables]
    for what, difference in step.checks:
        lines.append(f"<p class=check>✓ {html.escape(what)} <small>(largest difference {difference:.0e})</small></p>")
    return "\n".join([*lines, "</section>"])


def _html_table(table: Table) -> str:
    finite = [abs(value) for values in table.values for value in values if math.isfinite(value)]
    reach = max(finite, default=1.0) or 1.0
    lines = [f"<div class=table><table><caption>{html.escape(table.caption)}</caption>"]
    if len(table.columns) > 1:
        titles = "".join(f"<th>{column}</th>" for column in table.columns)
        more = f"<th class=more>… {table.total} in all</th>" if table.total > len(table.columns) else ""
        lines.append(f"<tr><th></th>{titles}{more}</tr>")
    for row, (label, values) in enumerate(zip(table.rows, table.values, strict=True)):
        marked = " class=marked" if row == table.marked else ""
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
