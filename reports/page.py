"""The HTML page: one file, no network. Vega is embedded once; the content security policy allows only the two scripts
that belong to the page.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from reports.parts import Chart, Section
from reports.samples import embedded
from reports.templating import TEMPLATES, template
from reports.verdict import commands, verdict

_SINGLE = ("summary", "recovery")


def render(run: Mapping[str, Any], sections: Sequence[Section], folder: Path) -> str:
    charts = {f"{section.name}-{i}": chart for section in sections for i, chart in enumerate(section.charts)}
    scripts = [vega(), (TEMPLATES / "report.js").read_text(encoding="utf-8")]
    return template("report.html.j2").render(
        run=run,
        verdict=verdict(run),
        commands=commands(run, folder),
        sections=sections,
        open=_open(run, sections),
        shared=_shared(sections),
        specs=_script_json({name: _spec(chart) for name, chart in charts.items()}),
        samples=embedded(run, folder),
        scripts=[Markup(text) for text in scripts],
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        policy=" ".join(f"'sha256-{_sha256(text)}'" for text in scripts),
    )


def _open(run: Mapping[str, Any], sections: Sequence[Section]) -> list[str]:
    """The sections that are not folded: of a single run that was evaluated, the summary and what recovery did."""
    single = not run.get("sweep") and not run.get("dissociation") and run["variants"][0]["eval"]
    return [section.name for section in sections if not single or section.name in _SINGLE]


def _shared(sections: Sequence[Section]) -> tuple[tuple[str, str], ...]:
    """The legend that most sections have in common, which stays in sight; none where no two have one."""
    found = Counter(legend for section in sections for legend in {chart.legend for chart in section.charts} if legend)
    legend, times = next(iter(found.most_common(1)), ((), 0))
    return legend if times > 1 else ()


@functools.cache
def vega() -> str:
    """Vega, Vega-Lite and vega-embed as one script from the package vl-convert, with `</script` escaped."""
    import vl_convert

    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")).replace("</script", "<\\/script").strip()


def _spec(chart: Chart) -> dict[str, Any]:
    found: dict[str, Any] = chart.spec.to_dict()
    found.pop("config", None)  # the page has its own, by colour scheme
    return found


def _script_json(value: Any) -> Markup:
    """JSON that no parser takes for markup: nothing in it can close the enclosing element."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("&", "\\u0026"))


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode()
