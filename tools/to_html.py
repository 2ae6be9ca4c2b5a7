"""Export a notebook as one HTML page that needs no network, with its formulas as MathML.

Usage: python tools/to_html.py NOTEBOOK OUTPUT_FOLDER
"""

import base64
import html
import mimetypes
import re
import sys
from pathlib import Path

from bs4 import BeautifulSoup
from jinja2 import pass_context
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

HERE = Path(__file__).resolve().parent
FIXES = [  # pattern in the converter's MathML, and what browsers need instead
    (
        r"<msub><mo>max</mo>(<mrow>.*?</mrow>)</msub>",
        r"<munder><mo movablelimits='true'>max</mo>\1</munder>",
    ),
    (r'<mo stretchy="false">&#x0007C;', "<mo stretchy='false' lspace='0' rspace='0'>&#x0007C;"),
    (r'<mi mathvariant="script">L</mi>', "<mi>ℒ</mi>"),
]
# A narrow window scrolls wide tables, also by keyboard.
SCROLLS = {"class": "table", "tabindex": "0", "role": "group", "aria-label": "Table"}


def mathml(latex, display, attributes=""):
    """Return a formula as MathML, which browsers draw and screen readers read by themselves."""
    code = convert(latex, display=display)
    for pattern, replacement in FIXES:
        code = re.sub(pattern, replacement, code)
    return code.replace("<math", f'<math{attributes} alttext="{html.escape(latex)}"', 1)


class Renderer(IPythonRenderer):
    """Turns Markdown into HTML."""

    def inline_math(self, body):
        """Return a formula within a line."""
        return mathml(body, "inline")

    def block_math(self, body):
        """Return a formula on a line of its own, which a narrow window lets the keyboard scroll."""
        return mathml(body, "block", ' tabindex="0"')

    def heading(self, text, level, **_):
        """Return a heading that the table of contents can link to, by the rule of JupyterLab."""
        anchor = BeautifulSoup(text, "html.parser").text.strip().replace(" ", "-")
        return f'<h{level} id="{html.escape(anchor)}">{text}</h{level}>\n'

    def _embed_image_or_attachment(self, src):
        """Return a picture's data in place of its path, which may lead above the notebook."""
        if ":" in src:
            return src
        data = base64.b64encode((Path(self.path) / src).read_bytes()).decode()
        return f"data:{mimetypes.guess_type(src)[0]};base64,{data}"


class PageExporter(HTMLExporter):
    """Exports a notebook with the template beside this file."""

    extra_template_basedirs = [str(HERE)]  # noqa: RUF012
    template_name = "html_template"

    @property
    def default_config(self):
        """The exporter's settings: of an output's forms take the picture, which has its text."""
        config = super().default_config
        forms = ["image/png", "text/html", "text/markdown", "text/plain"]
        config.NbConvertBase.display_data_priority = forms
        return config

    @pass_context
    def markdown2html(self, context, source):
        """Return Markdown as HTML."""
        path = context["resources"].get("metadata", {}).get("path", "")
        return MarkdownWithMath(renderer=Renderer(escape=False, path=path)).render(source)

    def from_notebook_node(self, nb, resources=None, **options):
        """Return the page and its resources."""
        page, resources = super().from_notebook_node(nb, resources, **options)
        soup = BeautifulSoup(page, "html.parser")
        soup.title.string = soup.h1.text
        for table in soup.find_all("table"):
            label_rows(table)
            table.wrap(soup.new_tag("div", attrs=SCROLLS))
        return str(soup), resources


def label_rows(table):
    """Where a table has no words in its header, make its first column the header."""
    if table.thead and not table.thead.text.strip():
        table.thead.decompose()
        for row in table.find_all("tr"):
            first = row.td
            first.name, first["scope"] = "th", "row"


def export(notebook, folder):
    """Write the page of `notebook` into `folder`; return its path."""
    page, _ = PageExporter().from_filename(str(notebook))
    target = Path(folder) / Path(notebook).with_suffix(".html").name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page, encoding="utf-8")
    return target


if __name__ == "__main__":
    print("written:", export(*sys.argv[1:]))
