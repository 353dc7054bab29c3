"""Run by `make report-check`: pages of `headway bench` in a headless browser, without errors and legible at every width.

`--make FOLDER`, run where headway is installed, writes pages of made-up records; PAGE ... are checked, and their
pictures written to --pictures, where there is playwright and a Chromium.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")
WIDTHS = (400, 800, 1600)
"""CSS pixels, of a phone, a tablet and a desk"""
FAULTS = r"""() => {
  const LEAST = 9, DRAWING = 300, CONTRAST = 4.5, TOUCH = 1.5  // px, px, ratio of WCAG 2.2's level AA, px
  const found = [], box = e => e.getBoundingClientRect(), said = e => JSON.stringify(e.textContent.trim().slice(0, 40))
  const apart = (a, b) => a.right - TOUCH <= b.left || b.right - TOUCH <= a.left
    || a.bottom - TOUCH <= b.top || b.bottom - TOUCH <= a.top
  const within = (a, b) => a.left >= b.left - 1 && a.right <= b.right + 1 && a.top >= b.top - 1 && a.bottom <= b.bottom + 1
  const rgb = colour => (colour.match(/[\d.]+/g) || [0, 0, 0, 0]).map(Number)
  const light = colour => rgb(colour).slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0)
  const behind = e => {
    for (; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor
      if (rgb(colour)[3] !== 0) return colour
    }
    return 'rgb(255, 255, 255)'
  }
  const contrast = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05) }

  if (document.documentElement.scrollWidth > innerWidth)
    found.push(`the page is ${document.documentElement.scrollWidth} px wide`)
  const drawings = [...document.querySelectorAll('svg')]
  if (!drawings.length) found.push('nothing is drawn')
  for (const svg of drawings) {
    if (!svg.checkVisibility() || box(svg).width < DRAWING || box(svg).height < DRAWING / 4)
      found.push(`a drawing is ${box(svg).width} by ${box(svg).height} px`)
    const texts = [...svg.querySelectorAll('text')]
    if (!texts.length) found.push('a drawing says nothing')
    texts.forEach((text, i) => {
      if (!within(box(text), box(svg))) found.push(`${said(text)} is cut off`)
      for (const other of texts.slice(0, i))
        if (!apart(box(text), box(other))) found.push(`${said(text)} touches ${said(other)}`)
    })
  }
  const words = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  while (words.nextNode()) {
    const e = words.currentNode.parentElement, style = getComputedStyle(e), drawn = e.closest('svg')
    if (!words.currentNode.data.trim() || e.closest('style, metadata, title')) continue
    const to = drawn ? e.getScreenCTM() : {a: 1, b: 0}
    const size = parseFloat(style.fontSize) * Math.hypot(to.a, to.b)
    if (size < LEAST) found.push(`${said(e)} is ${size.toFixed(1)} px high`)
    const ratio = contrast(drawn ? style.fill : style.color, behind(e))
    if (ratio < CONTRAST) found.push(`${said(e)} has a contrast of ${ratio.toFixed(1)}`)
  }
  for (const wide of document.querySelectorAll('.wide')) {
    const left = box(wide.querySelector('td')).width
    if (left > box(wide).width / 2) found.push(`names take ${left} of a table's ${box(wide).width} px`)
  }
  const levels = [...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(h => Number(h.tagName[1]))
  levels.forEach((level, i) => {
    if (level > (levels[i - 1] || 0) + 1 || (level === 1) !== (i === 0)) found.push(`headings: ${levels}`)
  })
  const ids = [...document.querySelectorAll('[id]')].map(e => e.id)
  const twice = ids.filter((id, i) => ids.indexOf(id) !== i)
  if (twice.length) found.push(`ids given twice: ${[...new Set(twice)].slice(0, 5)}`)
  return [...new Set(found)]
}"""
"""what is wrong with a page at the width that it has, as sentences"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("pages", type=Path, nargs="*", metavar="PAGE")
    parser.add_argument("--make", type=Path, metavar="FOLDER")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", default=Path("build/report"))
    given = parser.parse_args()
    if given.make is not None:
        make(given.make)
        return
    if not given.pages:
        parser.error("give PAGE, or --make FOLDER")
    sys.exit(4 if check(given.pages, given.pictures) else 0)


def make(folder: Path) -> None:
    """Write FOLDER/NAME.html of each made-up record."""
    from headway.bench.report.html import page
    from tests.test_report import RECORDS

    folder.mkdir(parents=True, exist_ok=True)
    for name, made in RECORDS.items():
        (folder / f"{name}.html").write_text(page(made()), encoding="utf-8")


def check(pages: list[Path], pictures: Path) -> int:
    """How much is wrong with pages at all widths; each fault is printed, each view kept as PICTURES/PAGE-WIDTH.png."""
    from playwright.sync_api import sync_playwright

    paths = [path for name in BROWSERS if (path := shutil.which(name))]
    if not paths:
        sys.exit(f"no browser: none of {', '.join(BROWSERS)} is on the PATH")
    pictures.mkdir(parents=True, exist_ok=True)
    count = 0
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=paths[0])
        print(f"Chromium {browser.version}")
        for path in pages:
            for width in WIDTHS:
                faults = look(browser, path.resolve(), width, pictures / f"{path.stem}-{width}.png")
                print(f"{path.name} at {width} px: {len(faults) or 'no'} faults", *faults, sep="\n  ")
                count += len(faults)
        browser.close()
    return count


def look(browser: Any, path: Path, width: int, picture: Path) -> list[str]:
    """What is wrong with one page at one width."""
    faults: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.on("console", lambda message: faults.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.on(
        "request", lambda asked: faults.append(f"loads {asked.url}") if asked.url != path.as_uri() else None
    )
    page.goto(path.as_uri())
    faults += page.evaluate(FAULTS)
    page.screenshot(path=picture, full_page=True)
    page.close()
    return faults


if __name__ == "__main__":
    main()
