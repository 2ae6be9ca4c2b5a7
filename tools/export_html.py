"""Export a notebook as a page that needs no network: python tools/export_html.py NOTEBOOK PAGE"""

import html
import re
import sys
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup
from latex2mathml.converter import convert
from nbconvert.exporters import html as exporter
from nbconvert.filters.markdown_mistune import IPythonRenderer

STYLE = """main { max-width: 1000px; margin: auto; --jp-cell-prompt-not-active-opacity: 1;
  --jp-mirror-editor-operator-color: #70c; --jp-mirror-editor-comment-color: #266 }
.highlight .mi, .highlight .mf { color: #060 } .highlight .ow { color: #70c }
.table, math[display=block] { overflow-x: auto }
main a:link { text-decoration: underline !important } main table { table-layout: auto !important }
main pre { white-space: pre-wrap !important; overflow-wrap: anywhere }
main img { max-width: 100%; height: auto; break-inside: avoid }
@media (max-width: 900px) { main { --jp-code-font-size: 12px } [class*=Prompt] { display: none }}"""
SCROLLS = {"class": "table", "tabindex": "0", "role": "group", "aria-label": "Table"}
BETTER_MATHML = {  # primes of the size of the letter, and what stands below max
    r"<msup>(<mi>[^<]*</mi>)<mi>&#x02032;</mi></msup>": r"<mrow>\1<mo>&#x02032;</mo></mrow>",
    r"<msub>(<mo)>(\w+</mo><m.*?)</msub>": r'<munder>\1 movablelimits="true">\2</munder>',
}


class Renderer(IPythonRenderer):
    """Writes formulas as MathML, which browsers draw and screen readers read by themselves."""

    def inline_math(self, body, display="inline"):
        """Return a formula."""
        code = convert(body, display=display)
        for pattern, replacement in BETTER_MATHML.items():
            code = re.sub(pattern, replacement, code)
        return code.replace("<math", f'<math alttext="{html.escape(body)}"', 1)

    def block_math(self, body):
        """Return a formula on a line of its own."""
        return self.inline_math(body, "block").replace("<math", "<math tabindex='0'", 1)

    def _embed_image_or_attachment(self, src):
        name = src.removeprefix("attachment:")  # a new one is only a file beside the page
        return super()._embed_image_or_attachment(src if name in self.attachments else name)


def export(notebook, target):
    """Write the page of `notebook` to `target`."""
    exporter.IPythonRenderer = Renderer
    node = nbformat.read(notebook, as_version=4)
    page, _ = exporter.HTMLExporter(embed_images=True).from_notebook_node(node)
    soup = BeautifulSoup(page, "html.parser")
    soup.title.string = soup.h1.find(string=True)
    soup.head.append(soup.new_tag("style", string=STYLE))
    for script in soup.find_all("script"):  # MathJax, require.js and Mermaid, from the network
        script.decompose()
    for table in soup.find_all("table"):
        table.wrap(soup.new_tag("div", attrs=SCROLLS))
    texts = {}  # of output pictures; nbconvert drops them
    for output in (output for cell in node.cells for output in cell.get("outputs", [])):
        data = output.get("data", {}).get("image/png", "").strip()
        texts[data] = output.get("metadata", {}).get("image/png", {}).get("alt")
    for image in soup.select(".jp-OutputArea img"):
        image["alt"] = texts.get(image["src"].partition(",")[2].strip()) or image["alt"]
    Path(target).write_text(str(soup), encoding="utf-8")


if __name__ == "__main__":
    export(*sys.argv[1:])
