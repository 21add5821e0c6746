"""Pages of text beside the dashboards, so that their links lead somewhere in any Grafana: each alert's runbook, as it
stands in ``docs/runbooks``, and how to open a run's report.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard, text
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import text as text_models

DOCS = Path(__file__).resolve().parents[1] / "docs" / "runbooks"
FOLDER = Path("grafana/runbooks")

REPORT = """\
Exact rows, intervals and tests stand in the report of a run: one file, `report.html`, that opens without a network. It
lies where the run was asked for and not here, since it is made when a run ends, and no metric tells of which run.

- `edgejoule run SPEC --on stack` leaves it in the run's folder.
- `edgejoule submit SPEC` does not wait: `edgejoule status` tells how far it is. After it,
  `edgejoule run SPEC --on stack` does nothing again that is done, and leaves the report.
- `edgejoule report FOLDER --html report.html` writes it again from the folder's `results.json`.
"""


def page(uid: str, title: str, content: str) -> dashboard.Dashboard:
    """A page with nothing but Markdown, and the way back.

    Raises:
        ValueError: it has a relative link, which leads nowhere in Grafana.
    """
    if "](" in content.replace("](https://", "").replace("](/d/", ""):
        raise ValueError(f"{title} has a link that is dead in Grafana; name the place in words")
    board = dashboard.Dashboard(title).uid(uid).tags(["edgejoule-text"]).readonly().timezone("browser")
    link = dashboard.DashboardLink("Edgejoule").type(models.DashboardLinkType.DASHBOARDS).tags(["edgejoule"])
    panel = text.Panel().title(title).span(24).height(20).mode(text_models.TextMode.MARKDOWN).content(content)
    return board.link(link).with_panel(panel)


def pages() -> Iterator[tuple[Path, dashboard.Dashboard]]:
    """Every page with its file, relative to the repository."""
    for path in sorted(DOCS.glob("*.md")):
        heading, _, content = path.read_text(encoding="utf-8").partition("\n")
        if path.stem != "README":
            name = heading.removeprefix("# ")
            yield FOLDER / f"{path.stem}.json", page(f"runbook-{path.stem}", name, content.strip() + "\n")
    yield FOLDER / "report.json", page("edgejoule-report", "The run's report", REPORT)
