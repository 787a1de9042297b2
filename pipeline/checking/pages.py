"""Data Docs without the network: pages about one validation, from the document that Great Expectations draws.

Great Expectations' own templates load thirteen files and a counting pixel from elsewhere, and put cells into the page
as they are. Here its document is drawn by a template that escapes every text, with a policy that lets the browser
load nothing, and with no clock and no random id in it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from string import Template
from typing import Any

from jinja2 import Environment
from markupsafe import Markup, escape

from pipeline.display import VISIBLE

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --good: #18794e; --bad: #c62a2f; }
@media (prefers-color-scheme: dark) { :root { --good: #4cc38a; --bad: #ff8589; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid var(--line); }
nav { display: flex; gap: 1rem; } table { border-collapse: collapse; width: 100%; margin: .5rem 0; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; }
th { background: var(--soft); white-space: nowrap; } td > p { margin: 0; } td table { font-size: .87rem; }
code, pre, .rows { font: .85rem/1.45 ui-monospace, monospace; white-space: pre-wrap; }
b { background: var(--soft); border-radius: .25rem; } strong { color: var(--bad); }
.good { color: var(--good); } .bad { color: var(--bad); }
"""
STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; img-src data:; style-src 'sha256-{STYLE_HASH}'; base-uri 'none'; form-action 'none'"
PAGE = """
{%- macro mark(good) -%}
  <span class="{{ 'good' if good else 'bad' }}">{{ "\u2713" if good else "\u2717" }}</span>
{%- endmacro -%}
{%- macro block(it) -%}
  {%- if it is mapping -%}
    {%- set kind = it.content_block_type -%}
    {%- if kind == "string_template" -%}
      {%- set tag = it.string_template.tag -%}
      {%- set icon = it.string_template.params and it.string_template.params.markdown_status_icon -%}
      {%- if icon %}{{ mark(icon == "\u2705") }}
      {%- elif tag == "code" %}<pre>{{ it | said }}</pre>
      {%- elif tag == "strong" %}<p><strong>{{ it | said }}</strong></p>
      {%- else %}<p>{{ it | said }}</p>{% endif -%}
    {%- elif kind == "header" %}<h2>{{ block(it.header) | striptags }}</h2>
      {%- if it.subheader %}{{ block(it.subheader) }}{% endif %}
    {%- elif kind == "table" -%}
      {%- if it.header %}<h3>{{ block(it.header) | striptags }}</h3>{% endif -%}
      <table>
      {%- if it.header_row %}<tr>{% for cell in it.header_row %}<th>{{ block(cell) }}</th>{% endfor %}</tr>{% endif -%}
      {%- for row in it.table %}
<tr>{% for cell in row %}<td>{{ block(cell) }}</td>{% endfor %}</tr>
      {%- endfor %}
</table>
    {%- elif kind == "collapse" -%}
      <details><summary>{{ block(it.collapse_toggle_link) }}</summary>{{ block(it.collapse) }}</details>
    {%- elif kind == "text" -%}{{ block(it.text) }}
    {%- elif kind == "bullet_list" -%}<ul>{% for x in it.bullet_list %}<li>{{ block(x) }}</li>{% endfor %}</ul>
    {%- endif -%}
  {%- elif it is string or it is number -%}{{ it }}
  {%- elif it is iterable -%}{% for x in it %}{{ block(x) }}{% endfor %}
  {%- endif -%}
{%- endmacro -%}
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{{ title }}</title>
<style>{{ style }}</style>
</head>
<body>
<nav><a href="index.html">Verdict</a> <a href="validation.html">Validation result</a></nav>
<h1>{{ title }}</h1>
{% if document -%}
{% for section in document.sections %}<section>{{ block(section.content_blocks) }}</section>
{% endfor -%}
{% else -%}
{% set failed = verdict.expectations | rejectattr("success") | list -%}
<p>data/{{ verdict.of }}, {{ verdict.rows }} rows:
{% if failed %}<span class="bad">{{ failed | length }} of {{ verdict.expectations | length }} expectations failed</span>
{%- else %}<span class="good">all {{ verdict.expectations | length }} expectations are met</span>{% endif %}.</p>
<table>
<tr><th></th><th>name</th><th>what</th><th>expected</th><th>observed</th></tr>
{% for e in verdict.expectations -%}
<tr><td>{{ mark(e.success) }}</td>
<td>{{ e.name }}</td><td>{{ e.about }}</td><td>{{ e.expected }}</td><td>{{ e | observed }}</td></tr>
{% endfor -%}
</table>
{% for e in failed if e.offending -%}
<h2>{{ e.name }}: {{ e.offending | length }} of the rows that fail</h2>
<table class="rows">
<tr>{% for column in e.offending[0] %}<th>{{ column }}</th>{% endfor %}</tr>
{% for row in e.offending -%}
<tr>{% for value in row.values() %}<td>{{ value }}</td>{% endfor %}</tr>
{% endfor -%}
</table>
{% endfor -%}
{% endif -%}
</body>
</html>
"""


def pages(name: str, verdict: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, str]:
    """File name -> page: the verdict in short, and Great Expectations' own account of it."""
    environment = Environment(autoescape=True)
    environment.filters.update(said=_template_filled, observed=observed)
    page = environment.from_string(PAGE)
    shared = {"policy": Markup(POLICY), "style": Markup(STYLE), "verdict": verdict}
    drawn = {
        "index.html": page.render(shared, title=f"quality {name}"),
        "validation.html": page.render(shared, title=f"quality {name}: validation result", document=document),
    }
    return {file: html.translate(VISIBLE) for file, html in drawn.items()}


def observed(finding: Mapping[str, Any]) -> str:
    """What was found, in words."""
    if "unexpected" not in finding:
        return str(finding["observed"])
    if not finding["checked"]:
        return "applies to no row"
    return f"{finding['unexpected']} of {finding['checked']} rows fail"


def _template_filled(block: Mapping[str, Any]) -> Markup:
    """A text with `$names` in it: both it and the values are escaped, the values are set off."""
    text = block["string_template"]
    given = {**(text.get("params") or {}), "html_success_icon": ""}
    values = {key: Markup("<b>{}</b>").format(str(value)) for key, value in given.items() if value is not None}
    filled = Template(str(escape(text.get("template", "").strip()))).safe_substitute(values)
    return Markup(filled.replace("\n", "<br>"))
