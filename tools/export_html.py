"""Export a notebook as one HTML page that needs no network: nbconvert's `lab`, mended in four points.

Usage: python tools/export_html.py NOTEBOOK OUTPUT_FOLDER
"""

import html
import sys
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.exporters import html as exporter
from nbconvert.filters.markdown_mistune import IPythonRenderer

STYLE = """
.jp-RenderedHTMLCommon .table { overflow-x: auto; margin-bottom: 1em; }
.jp-RenderedHTMLCommon table { table-layout: auto; margin: 0; }
.jp-RenderedHTMLCommon img, .jp-RenderedImage img { max-width: 100%; height: auto; }
math[display=block] { overflow-x: auto; }
main { max-width: 1000px; margin: auto; }
"""
SCROLLS = {"class": "table", "tabindex": "0", "role": "group", "aria-label": "Table"}


class Renderer(IPythonRenderer):
    """Writes formulas as MathML, which browsers draw and screen readers read by themselves."""

    def inline_math(self, body, display="inline"):
        """Return a formula within a line."""
        code = convert(body, display=display)
        return code.replace("<math", f'<math alttext="{html.escape(body)}"', 1)

    def block_math(self, body):
        """Return a formula on a line of its own."""
        return self.inline_math(body, "block")


def export(notebook, folder):
    """Write the page of `notebook` into `folder`; return its path."""
    exporter.IPythonRenderer = Renderer
    cells = nbformat.read(notebook, as_version=4)
    page, _ = HTMLExporter(embed_images=True).from_notebook_node(cells)
    soup = BeautifulSoup(page, "html.parser")
    soup.title.string = soup.h1.find(string=True)
    soup.head.append(soup.new_tag("style", string=STYLE))
    for script in soup.find_all("script"):  # MathJax, require.js and Mermaid, all from the network
        script.decompose()
    for table in soup.find_all("table"):
        table.wrap(soup.new_tag("div", attrs=SCROLLS))
    outputs = [output for cell in cells.cells for output in cell.get("outputs", [])]
    pictures = {o.data["image/png"].strip(): o for o in outputs if "image/png" in o.get("data", {})}
    for image in soup.select(".jp-OutputArea img"):
        picture = pictures.get(image["src"].partition(",")[2].strip(), {"metadata": {}})
        image["alt"] = picture["metadata"].get("image/png", {}).get("alt", image["alt"])
    target = Path(folder) / Path(notebook).with_suffix(".html").name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(str(soup), encoding="utf-8")
    return target


if __name__ == "__main__":
    print("written:", export(*sys.argv[1:]))
